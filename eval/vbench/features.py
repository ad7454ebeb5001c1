"""Features of frames by the networks that VBench compares frames with. Compares none.

Dimensions: N frame, H, W pixel rows and columns, C colour channel, D feature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from astro_cli.config.errors import RunError
from eval.metrics.base import Towers
from eval.vbench.frames import as_float_NCHW
from eval.vbench.networks import clip_tower, dino, on
from eval.vbench.pictures import clip_input, cropped_input, dino_input, picture_input

Features = Callable[[np.ndarray], torch.Tensor]  # (N, H, W, C) uint8 -> (N, D)


def features_of(towers: Towers, name: str) -> Features:
    """Of whole frames by DINO ("dino"), of their centres by DINO ("dino_centre") or DINOv2 ("dinov2"), or of CLIP ViT-B/32 ("clip").

    Raises:
        CheckpointError: the weights are missing or others.
        RunError: "dreamsim", which has no release that installs beside current libraries.
    """
    if name == "dreamsim":
        raise RunError("vbench", name, "not run: DreamSim is not installable here", hint="fast = 'clip' is the released code's other choice")
    if name == "clip":
        tower = clip_tower(towers, "clip_b32").model
        return torch.no_grad()(lambda frames_NHWC: tower.encode_image(on(tower, clip_input(as_float_NCHW(frames_NHWC)))))
    network = dino(towers, "dinov2" if name == "dinov2" else "dino")
    prepare = dino_input if name == "dino" else cropped_input
    return torch.no_grad()(lambda frames_NHWC: network(on(network, prepare(as_float_NCHW(frames_NHWC)))))


def picture_features(towers: Towers) -> Callable[[Path], torch.Tensor]:
    """DINO's features (1, D) of the centre of a picture in a file, resized as a picture (rounded to 8 bits).

    Source: vbench 0.1.5, vbench2_beta_i2v/utils.py, `dino_transform_Image_internet`.
    **Deviations:** pictures are taken as RGB; vbench fails on others.
    """
    network = dino(towers)

    @torch.no_grad()
    def features(path: Path) -> torch.Tensor:
        with Image.open(path) as picture:
            x_1CHW = picture_input(picture.convert("RGB"))
        return network(on(network, x_1CHW))

    return features

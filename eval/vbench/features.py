"""Features of frames by the networks that VBench compares frames with.

Dimensions: N frame, H, W pixel rows and columns, C colour channel, D feature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from astro_cli.config.files import check_regular
from eval.contract import NetworkCache, ScoreError
from eval.vbench.frames import as_float_NCHW
from eval.vbench.networks import clip_tower, dino, dreamsim, on
from eval.vbench.pictures import (
    clip_input,
    cropped_input,
    dino_input,
    picture_input,
    stretched_input,
    stretched_picture,
)

Features = Callable[[np.ndarray], torch.Tensor]  # (N, H, W, C) uint8 -> (N, D)


def features_of(loaded: NetworkCache, name: str) -> Features:
    """Of whole frames by DINO ("dino"), of their centres by DINO ("dino_centre"), DINOv2 ("dinov2") or CLIP ViT-B/32
    ("clip"), of stretched frames by DreamSim ("dreamsim").

    Raises:
        CheckpointError: the weights are missing or others.
    """
    if name == "dreamsim":
        network = dreamsim(loaded)
        return torch.no_grad()(lambda frames_NHWC: network(on(network, stretched_input(as_float_NCHW(frames_NHWC)))))
    if name == "clip":
        tower = clip_tower(loaded, "clip_b32").model
        return torch.no_grad()(
            lambda frames_NHWC: tower.encode_image(on(tower, clip_input(as_float_NCHW(frames_NHWC))))
        )
    network = dino(loaded, "dinov2" if name == "dinov2" else "dino")
    prepare = dino_input if name == "dino" else cropped_input
    return torch.no_grad()(lambda frames_NHWC: network(on(network, prepare(as_float_NCHW(frames_NHWC)))))


def picture_features(loaded: NetworkCache, name: str) -> Callable[[Path], torch.Tensor]:
    """Features (1, D) of a picture in a file, resized as a picture (rounded to 8 bits): of its centre by DINO
    ("dino_centre"), of all of it, stretched, by DreamSim ("dreamsim").

    Source: vbench 0.1.5, vbench2_beta_i2v/utils.py, `dino_transform_Image_internet`, `dreamsim_transform_Image`.
    **Deviations:** pictures are taken as RGB, and turned as their EXIF says; vbench fails on other modes and leaves
    them as they are stored. VBench-I2V's own pictures are stored upright.
    """
    network, prepare = (dreamsim(loaded), stretched_picture) if name == "dreamsim" else (dino(loaded), picture_input)

    @torch.no_grad()
    def features(path: Path) -> torch.Tensor:
        check_regular(path, ScoreError)
        try:
            with Image.open(path) as picture:
                x_1CHW = prepare(upright(picture))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ScoreError(path, "image", f"no picture that can be read: {error}") from error
        return network(on(network, x_1CHW))

    return features


def upright(picture: Image.Image) -> Image.Image:
    """A picture as viewers show it, RGB."""
    return ImageOps.exif_transpose(picture).convert("RGB")

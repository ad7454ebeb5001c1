"""Features of frames by name: the frozen networks that a loss may look through, with gradients to the frames.

| name | network | its file, anywhere below `<checkpoints>/eval` |
|---|---|---|
| codec | the encoder of the embedded world's codec | comes with the run |
| dinov2 | DINOv2 ViT-B/14 | dinov2_vitb14_pretrain.pth |
| dinov3 | DINOv3 ViT-B/16 | dinov3_vitb16_pretrain_lvd1689m*.pth |

Dimensions: B clip, T frame, C colour channel, H, W pixel rows and columns, L token, D feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.nn import functional

from astro_cli.config.errors import CheckpointError
from astro_cli.models.backbone import Backbone
from astro_cli.models.dino import IMAGENET_MEAN, IMAGENET_STD, Dino, load_dino
from astro_cli.models.dinov3 import DinoV3, load_dinov3
from astro_cli.models.shapes_backbone import ShapesBackbone
from astro_cli.zoo.needs import NeededPart
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE, checkpoints_folder

See = Callable[[torch.Tensor], torch.Tensor]  # frames (B, T, 3, H, W) in [0, 1] -> (B, D)
FILES = {"dinov2": "dinov2_vitb14_pretrain", "dinov3": "dinov3_vitb16_pretrain_lvd1689m"}  # stems of released files
SHORT_SIDE = 224  # pixels, about: DINO's own size


def find(name: str) -> Path:
    """The file of a network.

    Raises:
        CheckpointError: it is not here, with the place to put it.
    """
    (need,) = needs([name])
    if need.here is None:
        raise CheckpointError(name, "weights", f"not {need.looked}", hint="; ".join(need.bring))
    return need.here


def needs(names: Iterable[str]) -> list[NeededPart]:
    """The files of those that have one."""
    folder, parts = checkpoints_folder() / "eval", []
    for name in names:
        if name in FILES:
            here = next((path for path in sorted(folder.rglob(f"{FILES[name]}*")) if path.is_file()), None)
            bring = f"put {FILES[name]}.pth of facebookresearch/{name} at {folder / FILES[name]}.pth"
            looked = f"below {folder} ({CHECKPOINTS_VARIABLE})"
            parts.append(NeededPart(f"features: {name}", here, looked, [bring]))
    return parts


def load_features(name: str, backbone: Backbone, device: torch.device) -> See:
    """The features of that name.

    Raises:
        CheckpointError: weights that are missing, damaged or of another model.
    """
    if name == "codec":
        assert isinstance(backbone, ShapesBackbone), "checked with the recipe"
        return lambda frames_BTCHW: backbone.features(frames_BTCHW).mean((1, 3, 4))
    network = load_dino(find(name)) if name == "dinov2" else load_dinov3(find(name))
    return PatchMean(network.to(device))


class PatchMean:
    """Mean of a DINO's patch tokens over frames and patches, (B, D).

    Frames are scaled so that the shorter side has about 224 pixels and both are whole patches.
    """

    def __init__(self, network: Dino | DinoV3) -> None:
        self.network = network

    def __call__(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        pictures, patch = frames_BTCHW.flatten(0, 1), self.network.patch
        scale = SHORT_SIDE / min(pictures.shape[-2:])
        size = [max(1, round(side * scale / patch)) * patch for side in pictures.shape[-2:]]
        pictures = functional.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(values).view(3, 1, 1).to(pictures) for values in (IMAGENET_MEAN, IMAGENET_STD))
        patches_BTLD = self.network.patches((pictures - mean) / std).unflatten(0, frames_BTCHW.shape[:2])
        return patches_BTLD.mean((1, 2))

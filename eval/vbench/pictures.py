"""Frames as the networks of VBench take them, where that differs from CLIP's own way.

Dimensions: N frame, C colour channel, H, W pixel rows and columns, S side of the square network input.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from eval.networks.pictures import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, WHITE, normalise, to_tensor

SIDE_PX, WIDE_PX = 224, 256


def clip_input(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Floats in 0..255 as CLIP's input (N, C, S, S), resized without rounding or antialiasing.

    Source: vbench 0.1.5, utils.py, `clip_transform` on what its `load_video` returns. **Deviations:** none.
    """
    small = TF.resize(x_NCHW, [SIDE_PX], InterpolationMode.BICUBIC, antialias=False)
    return normalise(TF.center_crop(small, [SIDE_PX, SIDE_PX]) / WHITE, CLIP_MEAN, CLIP_STD)


def dino_input(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Floats in 0..255 as DINO's input: the shorter side 224, nothing cropped, so 480 x 832 becomes 224 x 388.

    Source: vbench 0.1.5, utils.py, `dino_transform`. **Deviations:** none.
    """
    small = TF.resize(x_NCHW, [SIDE_PX], InterpolationMode.BILINEAR, antialias=False)
    return normalise(small / WHITE, IMAGENET_MEAN, IMAGENET_STD)


def cropped_input(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Floats in 0..255 as DINO's input in VBench-I2V and DINOv2's in VBench-Long: shorter side 256, centre 224.

    Source: vbench 0.1.5, vbench2_beta_i2v/utils.py, `dino_transform_internet`; vbench2_beta_long/utils.py,
        `dinov2_transform`.
    **Deviations:** none.
    """
    small = TF.resize(x_NCHW, [WIDE_PX], InterpolationMode.BICUBIC, antialias=True)
    return normalise(TF.center_crop(small, [SIDE_PX, SIDE_PX]) / WHITE, IMAGENET_MEAN, IMAGENET_STD)


def stretched_input(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Floats in 0..255 as DreamSim's input, in 0..1: stretched to the square; the network normalises.

    Source: vbench 0.1.5, vbench2_beta_i2v/utils.py and vbench2_beta_long/utils.py, `dreamsim_transform`.
        **Deviations:** none.
    """
    return TF.resize(x_NCHW, [SIDE_PX, SIDE_PX], InterpolationMode.BICUBIC, antialias=True) / WHITE


def stretched_picture(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as `stretched_input` takes frames (1, C, S, S), resized by Pillow, which rounds to 8 bits.

    Source: vbench 0.1.5, vbench2_beta_i2v/utils.py, `dreamsim_transform_Image`. **Deviations:** none.
    """
    small = TF.resize(picture, [SIDE_PX, SIDE_PX], InterpolationMode.BICUBIC)  # type: ignore[arg-type] - pictures too
    return to_tensor(np.asarray(small)[None])


def picture_input(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as `cropped_input` takes frames (1, C, S, S), resized by Pillow, which rounds to 8 bits.

    Source: vbench 0.1.5, vbench2_beta_i2v/utils.py, `dino_transform_Image_internet`. **Deviations:** none.
    """
    small = TF.center_crop(TF.resize(picture, [WIDE_PX], InterpolationMode.BICUBIC), [SIDE_PX, SIDE_PX])  # type: ignore[arg-type] - pictures too
    return normalise(to_tensor(np.asarray(small)[None]), IMAGENET_MEAN, IMAGENET_STD)

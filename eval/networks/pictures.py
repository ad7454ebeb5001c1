"""Frames as the input of image networks: resize, crop, normalise.

Dimensions: N frame, C colour channel, H, W pixel rows and columns, S side of the square network input.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from eval.networks.opencv_resize import stretch

Resize = Literal["pil", "tensor"]
WHITE = 255.0
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def clip_input(frames_NHWC: np.ndarray, side: int, resize: Resize) -> torch.Tensor:
    """uint8 RGB frames as CLIP's input (N, C, S, S): shorter side to `side` (bicubic), centre crop, CLIP's mean and
    deviation.

    Args:
        resize: "pil" as OpenAI's own code (antialiased, rounded to 8 bits); "tensor" as VBench (no antialiasing).

    Source: OpenAI CLIP's `_transform`; VBench 0.1.5, utils.py, `clip_transform`. **Deviations:** none.
    """
    if resize == "pil":
        x_NCSS = to_tensor(np.stack([_antialiased(frame, side) for frame in frames_NHWC]))
    else:
        x_NCHW = torch.from_numpy(np.ascontiguousarray(frames_NHWC)).permute(0, 3, 1, 2)
        small = TF.resize(x_NCHW, [side], InterpolationMode.BICUBIC, antialias=False)
        x_NCSS = TF.center_crop(small, [side, side]).float() / WHITE
    return normalise(x_NCSS, CLIP_MEAN, CLIP_STD)


def _antialiased(frame_HWC: np.ndarray, side: int) -> np.ndarray:
    picture: Any = Image.fromarray(frame_HWC)  # torchvision declares tensors only, and takes pictures too
    return np.asarray(TF.center_crop(TF.resize(picture, [side], InterpolationMode.BICUBIC), [side, side]))


def squeezed_input(frames_NHWC: np.ndarray, side: int) -> torch.Tensor:
    """uint8 RGB frames as VideoCLIP-XL's input (N, C, S, S): stretched to a square (bilinear), ImageNet's mean and
    deviation.

    Source: VideoCLIP-XL's released demo, which uses cv2.resize. **Deviations:** none.
    """
    return normalise(to_tensor(stretch(frames_NHWC, side)), IMAGENET_MEAN, IMAGENET_STD)


def to_tensor(frames_NHWC: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, C) as float (N, C, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(frames_NHWC)).permute(0, 3, 1, 2).float() / WHITE


def normalise(x_NCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    mean_C11, std_C11 = (torch.tensor(values, device=x_NCHW.device).view(-1, 1, 1) for values in (mean, std))
    return (x_NCHW - mean_C11) / std_C11

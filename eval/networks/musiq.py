"""MUSIQ's picture quality as VBench uses it: frames in, 0 to 100 out.

Dimensions: N frame, H, W pixel rows and columns, C colour channel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torchvision import transforms

from astro_cli.models import network_files as files

LIMIT_PX = 512
Resize = Literal["longer", "shorter", "shorter_centercrop", "none"]
WHAT = "musiq_spaq_ckpt-358bb6af.pth of chaofengc/IQA-PyTorch, release v0.1-weights"


class ImagingQuality:
    """MUSIQ trained on SPAQ (arXiv 2108.05997), through pyiqa.

    Args:
        path: the released file, `musiq_spaq_ckpt-358bb6af.pth`.
        resize: side of a frame that is brought down to 512 pixels, if longer; VBench's default is the longer one.

    Raises:
        CheckpointError: another file.

    Source: vbench 0.1.5, imaging_quality.py.
    **Deviations:** none; pyiqa would unpickle the file, here only tensors are read.
    """

    def __init__(self, path: Path, resize: Resize = "longer") -> None:
        from pyiqa.archs.musiq_arch import MUSIQ

        self.resize: Resize = resize
        self.network = files.fill(MUSIQ(pretrained=False), files.read(path), path, WHAT)
        self.device = next(self.network.parameters()).device

    @torch.no_grad()
    def __call__(self, frames_NHWC: np.ndarray) -> np.ndarray:
        """(N,) scores in 0..100 of (N, H, W, 3) uint8 RGB frames."""
        frames_NCHW = torch.from_numpy(np.ascontiguousarray(frames_NHWC)).permute(0, 3, 1, 2).float()
        resized_NCHW = resized(frames_NCHW, self.resize) / 255.0
        return np.array([float(self.network(frame_CHW[None].to(self.device))) for frame_CHW in resized_NCHW])


def resized(frames_NCHW: torch.Tensor, resize: Resize) -> torch.Tensor:
    """Frames no longer than 512 pixels on the chosen side; smaller ones stay as they are."""
    height, width = frames_NCHW.shape[-2:]
    side = max(height, width) if resize == "longer" else min(height, width)
    if resize == "none" or side <= LIMIT_PX:
        return frames_NCHW
    scale = LIMIT_PX / side
    smaller = transforms.Resize(size=(int(scale * height), int(scale * width)), antialias=False)(frames_NCHW)
    return transforms.CenterCrop(LIMIT_PX)(smaller) if resize == "shorter_centercrop" else smaller

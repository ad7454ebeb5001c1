"""Frames as tensors, as vbench's transforms and networks take them.

Dimensions: N frame, H, W pixel rows and columns, C colour channel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional


def as_float_NCHW(frames_NHWC: np.ndarray) -> torch.Tensor:
    """float32 in 0..255, as vbench's `load_video` gives them: its transforms resize these without rounding."""
    return torch.from_numpy(np.ascontiguousarray(frames_NHWC)).permute(0, 3, 1, 2).float()


def padding(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: what centres the frame in the next multiple. RAFT's and AMT's InputPadder."""
    rows, columns = -height % multiple, -width % multiple
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def padded(x_NCHW: torch.Tensor, multiple: int) -> torch.Tensor:
    """Borders repeated up to the next multiple."""
    return functional.pad(x_NCHW, padding(x_NCHW.shape[-2], x_NCHW.shape[-1], multiple), mode="replicate")

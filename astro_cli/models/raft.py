"""RAFT optical flow through torchvision, from its released files: the evaluation's flow, and that of training videos.

Dimensions: B pair, C colour channel, H, W pixel rows and columns, 2 x and y displacement in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import optical_flow

from astro_cli.media.video import Frame
from astro_cli.models import network_files as files

Model = Literal["raft_large", "raft_small"]
WHITE = 255.0
STRIDE, LEAST = 8, 128  # sides are multiples of 8, and long enough for four levels of correlations


class Raft:
    """Flow from one frame to another.

    Source: Teed and Deng 2003.12039, torchvision's `raft_large` and `raft_small`. **Deviations:** sides that are no
        multiple of 8 or below 128
    are padded by repeating the border, evenly on both sides, as RAFT's own `InputPadder`; torchvision leaves that to
    the caller.
    """

    def __init__(self, network: nn.Module, updates: int) -> None:
        self.network, self.updates = network, updates
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def flow(self, first_HWC: Frame, second_HWC: Frame) -> np.ndarray:
        """Where each pixel of the first frame has gone in the second: (2, H, W) float32, x then y, in pixels."""
        height, width, _ = first_HWC.shape
        pixels_BCHW = torch.from_numpy(np.stack([first_HWC, second_HWC])).permute(0, 3, 1, 2).to(self.device)
        x_BCHW = pixels_BCHW.float() / WHITE * 2 - 1
        top, bottom = _sides(height)
        left, right = _sides(width)
        padded = F.pad(x_BCHW, (left, right, top, bottom), mode="replicate")
        flow_B2HW = self.network(padded[:1], padded[1:], num_flow_updates=self.updates)[-1]
        return flow_B2HW[0, :, top : top + height, left : left + width].cpu().numpy()


def _sides(length: int) -> tuple[int, int]:
    """Padding before and after."""
    total = max(-(-length // STRIDE) * STRIDE, LEAST) - length
    return total // 2, total - total // 2


def load(path: Path, model: Model, updates: int) -> Raft:
    """Raises: CheckpointError: not torchvision's weights of this model."""
    network = {"raft_large": optical_flow.raft_large, "raft_small": optical_flow.raft_small}[model](
        weights=None, progress=False
    )
    files.fill(network, files.read(path), path, f"torchvision's {model}")
    return Raft(network, updates)

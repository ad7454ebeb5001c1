"""Motion smoothness from a network that interpolates frames.

Dimensions: H, W pixel rows and columns, C colour channel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from eval.contract import Frame, Sample, Score
from eval.vbench.dimension import at_least
from eval.vbench.frames import padded, padding
from eval.vbench.networks import on

WHITE, MULTIPLE = 255.0, 16


class _Watcher:
    """Guesses frame 2k + 1 from frames 2k and 2k + 2 when the latter comes; keeps two frames."""

    def __init__(self, scorer: SmoothnessScorer) -> None:
        self.scorer = scorer
        self.even: Frame | None = None
        self.odd: Frame | None = None
        self.errors: list[float] = []

    def see(self, index: int, frame_HWC: Frame) -> None:
        if index % 2 == 1:
            self.odd = frame_HWC
            return
        if self.even is not None and self.odd is not None:
            guess_HWC = self.scorer.between(self.even, frame_HWC)
            self.errors.append(float(np.abs(guess_HWC.astype(np.int16) - self.odd).mean()))
        self.even = frame_HWC

    def scores(self) -> dict[str, Score]:
        return {self.scorer.name: Score((WHITE - float(np.mean(self.errors))) / WHITE, {"mae": self.errors})}


class SmoothnessScorer:
    """(255 - mean over odd n of |f_n - AMT(f_n-1, f_n+1)|) / 255, pixels of 0..255.

    Args:
        network: AMT-S.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, motion_smoothness.py.
    **Deviations:** none on a CPU, and on GPUs that hold the frames: vbench's scaling by memory never runs, since it
    compares a device with a string.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name, self.network = name, network
        self.half_1111 = on(network, torch.tensor(0.5).view(1, 1, 1, 1))

    def watch(self, sample: Sample) -> _Watcher:
        at_least(sample, 3, self.name)
        return _Watcher(self)

    @torch.no_grad()
    def between(self, before_HWC: Frame, after_HWC: Frame) -> np.ndarray:
        """The frame half way, (H, W, C) uint8, rounded down as vbench does."""
        height, width = before_HWC.shape[:2]
        pair = [on(self.network, padded(_unit_1CHW(frame), MULTIPLE)) for frame in (before_HWC, after_HWC)]
        guess_CHW = self.network(*pair, self.half_1111, scale_factor=1, eval=True)["imgt_pred"][0]
        left, _, top, _ = padding(height, width, MULTIPLE)
        inner_HWC = guess_CHW[:, top : top + height, left : left + width].permute(1, 2, 0) * WHITE
        return inner_HWC.cpu().numpy().clip(0, WHITE).astype(np.uint8)


def _unit_1CHW(frame_HWC: Frame) -> torch.Tensor:
    return torch.tensor(frame_HWC).permute(2, 0, 1)[None] / WHITE

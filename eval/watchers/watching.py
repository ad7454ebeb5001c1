"""The two ways to watch a video: keep chosen frames, or take all of them in batches.

Dimensions: N chosen or batched frames, T frame, H, W pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eval.contract import Frame, Score


class Chosen:
    """Keeps the frames of `indices` (a frame may be asked for twice) and scores them at the end."""

    def __init__(self, indices: Sequence[int], finish: Callable[[np.ndarray], dict[str, Score]]) -> None:
        self.indices, self.finish = list(indices), finish
        self.wanted = set(self.indices)
        self.kept: dict[int, Frame] = {}

    def see(self, index: int, frame_HWC: Frame) -> None:
        if index in self.wanted:
            self.kept[index] = frame_HWC

    def scores(self) -> dict[str, Score]:
        """`finish` of the chosen frames (N, H, W, 3) uint8."""
        return self.finish(np.stack([self.kept[index] for index in self.indices]))


class Batches:
    """Passes every frame on in batches of `size` (N, H, W, 3) uint8; the last one may be shorter."""

    def __init__(self, size: int, take: Callable[[np.ndarray], None], finish: Callable[[], dict[str, Score]]) -> None:
        self.size, self.take, self.finish = size, take, finish
        self.waiting: list[Frame] = []

    def see(self, index: int, frame_HWC: Frame) -> None:
        self.waiting.append(frame_HWC)
        if len(self.waiting) == self.size:
            self._flush()

    def scores(self) -> dict[str, Score]:
        if self.waiting:
            self._flush()
        return self.finish()

    def _flush(self) -> None:
        self.take(np.stack(self.waiting))
        self.waiting = []

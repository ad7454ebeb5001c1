"""Watches a video through an encoder: chosen frames become features as they come, and are dropped.

Dimensions: N frame, D feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from eval.contract import Frame, Score
from eval.watchers.watching import Batches

BATCH = 16  # frames encoded together


class Encoded:
    """Encodes the frames of `indices` in batches and scores their features at the end."""

    def __init__(
        self,
        indices: Iterable[int],
        encode: Callable[[np.ndarray], np.ndarray],
        finish: Callable[[dict[int, np.ndarray]], dict[str, Score]],
    ) -> None:
        """`encode`: (N, H, W, 3) uint8 -> (N, D). `finish` gets the features (D,) by frame number."""
        self.wanted, self.encode, self.finish = set(indices), encode, finish
        self.order: list[int] = []
        self.rows: list[np.ndarray] = []
        self.batches = Batches(BATCH, self._take, self._done)

    def see(self, index: int, frame_HWC: Frame) -> None:
        if index in self.wanted:
            self.order.append(index)
            self.batches.see(index, frame_HWC)

    def scores(self) -> dict[str, Score]:
        return self.batches.scores()

    def _take(self, frames_NHWC: np.ndarray) -> None:
        self.rows.extend(self.encode(frames_NHWC))

    def _done(self) -> dict[str, Score]:
        return self.finish(dict(zip(self.order, self.rows, strict=True)))

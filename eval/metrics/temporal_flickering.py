"""VBench's temporal flickering: how little neighbouring frames differ. Weight-free.

Dimensions: T frame, H, W pixel rows and columns.
"""

from __future__ import annotations

import numpy as np

from astro_cli.config.base import Config
from eval.metrics.base import Declaration, Frame, MetricInfo, Sample, Score, ScoreError, Towers

NAME = "temporal_flickering"
WHITE = 255.0


class FlickeringConfig(Config):
    """No choices: all frames, all pixels."""


class _Watcher:
    """Mean absolute difference of the frames seen so far; keeps one frame."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.last: Frame | None = None
        self.differences: list[float] = []

    def see(self, index: int, frame_HWC: Frame) -> None:
        if self.last is not None:
            wide, other = (frame.astype(np.int16) for frame in (frame_HWC, self.last))
            self.differences.append(float(np.abs(wide - other).mean()))
        self.last = frame_HWC

    def scores(self) -> dict[str, Score]:
        """(255 - mean over t of MAE(f_t, f_t+1)) / 255; VBench 0.1.5, temporal_flickering.py.

        **Deviations:** none; RGB instead of BGR does not change a mean over channels.
        """
        return {NAME: Score((WHITE - float(np.mean(self.differences))) / WHITE, {"mae": self.differences})}


class _Scorer:
    def watch(self, sample: Sample) -> _Watcher:
        if sample.info.frames < 2:
            raise ScoreError(sample.path, "frames", "1 frame, flickering needs 2 or more")
        return _Watcher(sample)


def _build(config: FlickeringConfig, towers: Towers) -> _Scorer:
    return _Scorer()


SCORER = Declaration(
    metrics=(MetricInfo(NAME, "up", "0..1", "VBench: 1 - mean absolute difference of neighbouring frames / 255"),),
    config=FlickeringConfig, version=1, build=_build,
)  # fmt: skip

"""VBench's temporal flickering: how little neighbouring frames differ. Weight-free, but for the filter that keeps
static videos.

Dimensions: T frame, H, W pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from eval.contract import Frame, Need, NetworkCache, Sample, Score, Scorer
from eval.vbench.dimension import DimensionConfig, at_least, declare
from eval.vbench.vbench_files import PACKAGE, need, path_of

NAME = "temporal_flickering"
WHITE = 255.0
RAFT = "raft"
Difference = Callable[[Frame, Frame], float]  # sum over pixels and channels of the absolute difference


def plain_difference(a_HWC: Frame, b_HWC: Frame) -> float:
    """Sum of |a - b| without leaving 8 bits."""
    return float((np.maximum(a_HWC, b_HWC) - np.minimum(a_HWC, b_HWC)).sum(dtype=np.uint64))


def fast_difference() -> Difference:
    """The same integer from OpenCV where that is installed, in a tenth of the time."""
    try:
        import cv2
    except ImportError:
        return plain_difference
    return lambda a_HWC, b_HWC: cv2.norm(a_HWC, b_HWC, cv2.NORM_L1)


class FlickerConfig(DimensionConfig):
    """`static_filter`: score videos that stand still by RAFT's flow and no others, as VBench's leaderboard does; off:
    all videos, no weights.
    """

    static_filter: bool = False


class _Watcher:
    """Mean absolute difference of the frames seen so far; keeps one frame."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference
        self.last: Frame | None = None
        self.differences: list[float] = []

    def see(self, index: int, frame_HWC: Frame) -> None:
        if self.last is not None:
            self.differences.append(self.difference(frame_HWC, self.last) / frame_HWC.size)
        self.last = frame_HWC

    def scores(self) -> dict[str, Score]:
        """(255 - mean over t of MAE(f_t, f_t+1)) / 255; VBench 0.1.5, temporal_flickering.py.

        **Deviations:** none; RGB instead of BGR does not change a mean over channels.
        """
        return {NAME: Score((WHITE - float(np.mean(self.differences))) / WHITE, {"mae": self.differences})}


class _Scorer:
    def __init__(self) -> None:
        self.difference = fast_difference()

    def watch(self, sample: Sample) -> _Watcher:
        at_least(sample, 2, NAME)
        return _Watcher(self.difference)


def _build(config: FlickerConfig, loaded: NetworkCache) -> Scorer:
    """The filter: see `eval.vbench.static.StaticScorer`."""
    if not config.static_filter:
        return _Scorer()
    from eval.vbench.networks import raft
    from eval.vbench.static import StaticScorer

    return StaticScorer(_Scorer(), raft(loaded))


def _filter_files(config: FlickerConfig) -> tuple[Path, ...]:
    return (path_of(RAFT),) if config.static_filter else ()


def _filter_needs(config: FlickerConfig) -> tuple[Need, ...]:
    return (PACKAGE, need(RAFT)) if config.static_filter else ()


SCORER = declare(
    NAME,
    "VBench: 1 - mean absolute difference of neighbouring frames / 255",
    _build,
    config=FlickerConfig,
    fuse_files=_filter_files,
    config_needs=_filter_needs,
)

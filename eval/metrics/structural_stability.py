"""How much of a video keeps its structure: the share of pixels whose flow forth and back agree, by RAFT.

Dimensions: 2 x and y displacement in pixels, H, W pixel rows and columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from astro_cli.zoo.raft_files import RAFT_FILES
from eval.contract import Declaration, Frame, MetricInfo, NetworkCache, Sample, Score, ScoreError
from eval.metrics.flow import FlowConfig
from eval.networks.weights_paths import need, require
from eval.watchers.flow_label import Estimate

NAME = "structural_stability"
RELATIVE, ABSOLUTE = 0.01, 0.5  # Sundaram et al.'s alpha_1 and alpha_2


def consistency(forth_2HW: np.ndarray, back_2HW: np.ndarray) -> float | None:
    """Share of the first frame's pixels, of those that stay in the picture, with

        | f(x) + b(x + f(x)) |^2 < 0.01 (| f(x) |^2 + | b(x + f(x)) |^2) + 0.5

    None where none stays. Source: Sundaram, Brox and Keutzer, ECCV 2010, Eq. 5.
    """
    from scipy.ndimage import map_coordinates

    _, height, width = forth_2HW.shape
    rows, columns = np.mgrid[:height, :width]
    x, y = columns + forth_2HW[0], rows + forth_2HW[1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    if not inside.any():
        return None
    at = np.stack([y[inside], x[inside]])
    back_2N = np.stack([map_coordinates(part, at, order=1, mode="nearest") for part in back_2HW])
    forth_2N = forth_2HW[:, inside]
    gap = np.square(forth_2N + back_2N).sum(0)
    bound = RELATIVE * (np.square(forth_2N).sum(0) + np.square(back_2N).sum(0)) + ABSOLUTE
    return float((gap < bound).mean())


class _Watcher:
    """Keeps one frame. Frames 0, s, 2 s, ... are compared with their predecessor, s being the interval."""

    def __init__(self, estimate: Estimate, interval: int) -> None:
        self.estimate, self.interval = estimate, interval
        self.last: Frame | None = None
        self.shares: list[float] = []

    def see(self, index: int, frame_HWC: Frame) -> None:
        if index % self.interval:
            return
        if self.last is not None:
            share = consistency(self.estimate(self.last, frame_HWC), self.estimate(frame_HWC, self.last))
            self.shares.append(0.0 if share is None else share)  # where nothing stays, nothing is kept
        self.last = frame_HWC

    def scores(self) -> dict[str, Score]:
        return {NAME: Score(float(np.mean(self.shares)), {"pairs": self.shares})}


class StructureScorer:
    """Mean over pairs of frames of the share of consistent pixels.

    Source: TeleBoost 2602.07595v1, section 7.3.1 shows pictures of it and gives no number; the measure is ours.
    Parts that are hidden in one of two frames are never consistent, so a perfect video has less than 1.
    """

    def __init__(self, estimate: Estimate, interval: int) -> None:
        self.estimate, self.interval = estimate, interval

    def watch(self, sample: Sample) -> _Watcher:
        if sample.info.frames <= self.interval:
            what = f"{sample.info.frames}, flow at interval {self.interval} needs {self.interval + 1} or more"
            raise ScoreError(sample.path, "frames", what)
        return _Watcher(self.estimate, self.interval)


def _build(config: FlowConfig, loaded: NetworkCache) -> StructureScorer:
    from eval.networks.raft import shared

    path = require(*RAFT_FILES[config.model])
    return StructureScorer(shared(loaded, path, config.model, config.updates).flow, config.interval)


def _files(config: FlowConfig) -> tuple[Path, ...]:
    return (require(*RAFT_FILES[config.model]),)


SCORER = Declaration(
    metrics=(MetricInfo(NAME, "up", "0..1", "share of pixels whose flow forth and back agree; RAFT"),),
    config=FlowConfig,
    version=1,
    build=_build,
    needs=(need("RAFT (torchvision)", *RAFT_FILES["raft_large"]),),
    files=_files,
)

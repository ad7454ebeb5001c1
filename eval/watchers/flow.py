"""Watches a video's motion: flow between frames a stated number apart, with or without a reference.

Any estimator serves. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eval.contract import Frame, MetricInfo, Sample, Score, ScoreError
from eval.watchers.flow_errors import ErrorSums, magnitude
from eval.watchers.flow_label import LABEL, Estimate

ERRORS = {
    "epe": ("pixels", "end-point error: mean distance to the reference's flow"),
    "over_1px": ("%", "share of pixels off by more than 1 pixel"),
    "over_3px": ("%", "share of pixels off by more than 3 pixels"),
    "f1_all": ("%", "share of pixels off by more than 3 pixels and 5 % (KITTI)"),
}


def flow_metrics(name: str, estimator: str) -> tuple[MetricInfo, ...]:
    """Magnitude first, then the errors against `labels["reference"]`."""
    errors = [MetricInfo(f"{name}.{key}", "down", unit, f"{text}; {estimator}") for key, (unit, text) in ERRORS.items()]
    return (
        MetricInfo(f"{name}.magnitude", "up", "pixels per interval", f"mean length of the flow; {estimator}"),
        *errors,
    )


class FlowScorer:
    """Mean flow magnitude of a video, and its errors where the prompt set names a reference."""

    def __init__(self, name: str, estimate: Estimate, interval: int) -> None:
        self.name, self.estimate, self.interval = name, estimate, interval

    def watch(self, sample: Sample) -> FlowWatcher:
        if sample.info.frames <= self.interval:
            raise ScoreError(
                sample.path,
                "frames",
                f"{sample.info.frames}, flow at interval {self.interval} needs {self.interval + 1} or more",
            )
        from eval.watchers.flow_reference import reference_flows  # opens videos; `astro eval list` need not

        return FlowWatcher(self, sample, reference_flows(sample, self.interval, self.estimate))


class FlowWatcher:
    """Keeps one frame. Frames 0, s, 2 s, ... are compared with their predecessor, s being the interval."""

    def __init__(self, scorer: FlowScorer, sample: Sample, references: Iterator[np.ndarray] | None) -> None:
        self.scorer, self.sample, self.references = scorer, sample, references
        self.last: Frame | None = None
        self.magnitudes: list[float] = []
        self.sums = ErrorSums()

    def see(self, index: int, frame_HWC: Frame) -> None:
        if index % self.scorer.interval:
            return
        if self.last is not None:
            self._compare(self.scorer.estimate(self.last, frame_HWC))
        self.last = frame_HWC

    def _compare(self, flow_2HW: np.ndarray) -> None:
        self.magnitudes.append(magnitude(flow_2HW))
        if self.references is None:
            return
        reference_2HW = next(self.references, None)
        if reference_2HW is None:
            raise ScoreError(self.sample.path, LABEL, f"ended after {len(self.magnitudes) - 1} pairs of frames")
        self.sums.add(flow_2HW, reference_2HW)

    def scores(self) -> dict[str, Score]:
        name, note = self.scorer.name, {"interval": self.scorer.interval}
        scores = {f"{name}.magnitude": Score(float(np.mean(self.magnitudes)), {**note, "pairs": self.magnitudes})}
        errors = self.sums.result()
        if errors is None:
            return scores | {f"{name}.{key}": Score(None) for key in ERRORS}
        values = {"epe": errors.epe, "over_1px": errors.over_1px, "over_3px": errors.over_3px, "f1_all": errors.f1_all}
        details = {**note, "pixels": errors.pixels, LABEL: self.sample.labels[LABEL]}
        return scores | {f"{name}.{key}": Score(values[key], details) for key in ERRORS}

"""Drift of a long video: how the imaging quality of its two-second clips varies. The quality itself is the scorer
`imaging_quality`.

Dimensions: N frame of a batch, T frame, M clip, H, W pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from eval.contract import Declaration, Frame, MetricInfo, NetworkCache, Sample, Score, ScoreError, Scorer, VideoWatcher
from eval.metrics import imaging_quality as inner
from eval.vbench.long import Span, cut

NAME = "drift"
POINTS = 100.0  # imaging quality is 0..1, drift is printed on 0..100
END = 0.1  # share of the clips at either end that last minus first compares
MIN_CLIPS = 2  # a sample deviation of one is undefined


class DriftConfig(Config):
    """Length of a clip in whole seconds, and how frames are brought to MUSIQ's size."""

    clip_seconds: int = Field(2, ge=1)
    resize: Literal["longer", "shorter", "shorter_centercrop", "none"] = "longer"


def drift_scores(quality_M: Sequence[float], seconds_M: Sequence[float]) -> dict[str, float]:
    """Drift and what stands beside it, of the clips of one video.

    drift = sqrt(sum_j (s_j - mean)^2 / (M - 1)), s_j the imaging quality of clip j on 0..100. Lower is better, but a
    video that is bad throughout drifts little, so the mean is reported too, with the signed slope (points per minute,
    least squares) and the last tenth minus the first.

    Source: Reward Forcing, arXiv 2512.04678, Eq. 12.
    **Deviations:** Eq. 12 prints neither the square nor the sample deviation's root; the text says standard deviation,
    which this is. Slope and last minus first are ours.
    """
    scores = np.asarray(quality_M, dtype=float)
    times = np.asarray(seconds_M, dtype=float) / 60
    end = max(1, round(END * len(scores)))
    slope = float(((times - times.mean()) * (scores - scores.mean())).sum() / ((times - times.mean()) ** 2).sum())
    return {
        NAME: float(scores.std(ddof=1)),
        f"{NAME}.quality": float(scores.mean()),
        f"{NAME}.slope": slope,
        f"{NAME}.last_first": float(scores[-end:].mean() - scores[:end].mean()),
    }


class _Watcher:
    """Passes each frame to the inner watchers of the clips it is in; the last clip may overlap the one before."""

    def __init__(self, sample: Sample, spans: Sequence[Span], quality: Scorer) -> None:
        self.sample, self.spans, self.quality = sample, spans, quality
        self.open: dict[int, VideoWatcher] = {}
        self.quality_of_clip: dict[int, float] = {}

    def see(self, index: int, frame_HWC: Frame) -> None:
        for number, span in enumerate(self.spans):
            if index == span.start:
                self.open[number] = self.quality.watch(_clip(self.sample, span))
            if span.start <= index < span.end:
                self.open[number].see(index - span.start, frame_HWC)
            if index == span.end - 1:
                score = self.open.pop(number).scores()[inner.NAME].value
                assert score is not None, "imaging quality applies to every clip"
                self.quality_of_clip[number] = POINTS * score

    def scores(self) -> dict[str, Score]:
        values = [self.quality_of_clip[number] for number in range(len(self.spans))]
        middles = [(span.start + span.end) / 2 / self.sample.info.fps for span in self.spans]
        scores = {key: Score(value) for key, value in drift_scores(values, middles).items()}
        details: dict[str, Any] = {"clips": [[span.start, span.end] for span in self.spans], "quality": values}
        return {**scores, NAME: Score(scores[NAME].value, details)}


def _clip(sample: Sample, span: Span) -> Sample:
    return replace(sample, info=replace(sample.info, frames=span.frames))


class DriftScorer:
    """Clips of `seconds`, the last extended backwards where a rest remains (VBench-Long's splitter).

    **Deviations:** those of `eval.vbench.long.cut`: frames are scored as decoded, not from clips encoded again.
    """

    def __init__(self, quality: Scorer, seconds: int) -> None:
        self.quality, self.seconds = quality, seconds

    def watch(self, sample: Sample) -> _Watcher:
        spans = cut(sample.info, self.seconds)
        if len(spans) < MIN_CLIPS:
            raise ScoreError(
                sample.path,
                "frames",
                f"{sample.info.seconds:.2f} s, drift needs more than one clip of {self.seconds} s",
            )
        return _Watcher(sample, spans, self.quality)


def _inner(config: DriftConfig) -> Any:
    return inner.SCORER.config.model_validate({"resize": config.resize})


def _build(config: DriftConfig, loaded: NetworkCache) -> DriftScorer:
    return DriftScorer(inner.SCORER.build(_inner(config), loaded), config.clip_seconds)


def _files(config: DriftConfig) -> tuple[Path, ...]:
    return inner.SCORER.files(_inner(config))


SCORER = Declaration(
    metrics=(
        MetricInfo(NAME, "down", "points of 0..100", "deviation of the imaging quality over 2 s clips"),
        MetricInfo(f"{NAME}.quality", "up", "points of 0..100", "mean imaging quality of the clips"),
        MetricInfo(f"{NAME}.slope", "up", "points per minute", "trend of the imaging quality"),
        MetricInfo(f"{NAME}.last_first", "up", "points of 0..100", "imaging quality, last tenth minus first tenth"),
    ),
    config=DriftConfig,
    version=1,
    build=_build,
    needs=inner.SCORER.needs,
    files=_files,
)

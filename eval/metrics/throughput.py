"""Frames per second at which a video was generated, read from the JSON that `astro sample` wrote beside it."""

from __future__ import annotations

import math

from astro_cli.config.base import Config
from eval.contract import Declaration, Frame, MetricInfo, NetworkCache, Sample, Score, ScoreError
from eval.watchers.sidecar import sidecar, sidecars_of

NAME, FIELD = "throughput", "frames_per_second"


class ThroughputConfig(Config):
    """The scorer has no options."""


class _Watcher:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def see(self, index: int, frame_HWC: Frame) -> None: ...

    def scores(self) -> dict[str, Score]:
        return {NAME: Score(self.rate)}


class _Scorer:
    """Pixel frames per second, decoding to pixels included.

    Source: `astro sample`'s sidecar, `frames_per_second`.
    **Deviations:** papers time a warm single stream on an H100; the record says the device of the evaluation, the
    sidecar that of the sampling.
    """

    def watch(self, sample: Sample) -> _Watcher:
        rate = sidecar(sample).get(FIELD)
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not math.isfinite(rate) or rate <= 0:
            raise ScoreError(
                sample.path.with_suffix(".json"), FIELD, "not stated beside the video", hint="`astro sample` writes it"
            )
        return _Watcher(float(rate))


def _build(config: ThroughputConfig, loaded: NetworkCache) -> _Scorer:
    return _Scorer()


SCORER = Declaration(
    metrics=(MetricInfo(NAME, "up", "frames per second", "speed of generation, from the sidecar"),),
    config=ThroughputConfig,
    version=1,
    build=_build,
    sees=False,
    reads=sidecars_of,
)

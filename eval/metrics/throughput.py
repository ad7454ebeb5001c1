"""Frames per second at which a video was generated, read from the JSON that `astro sample` wrote beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from astro_cli.config.base import Config
from eval.contract import Declaration, Frame, MetricInfo, NetworkCache, Sample, Score, ScoreError
from eval.watchers.sidecar import sidecar, sidecars_of

# Metric and the sidecar's field: with decoding to pixels, and of the loop alone.
NAME, FIELD = "throughput", "frames_per_second"
LOOP, LOOP_FIELD = "throughput.loop_throughput", "loop_frames_per_second"
# What a speed holds under; kept beside each score, as `astro bench sample` keeps it in its records.
CONDITIONS = (
    "first_block_seconds",
    "peak_memory_bytes",
    "window_full",
    "cache",
    "decoder",
    "attention",
    "linear",
    "kv",
    "noise",
    "compile",
    "graphs",
    "dtype",
    "device",
    "device_name",
    "warm_up_blocks",
    "batch",
)


class ThroughputConfig(Config):
    """The scorer has no options."""


class _Watcher:
    def __init__(self, rate: float, loop: float | None, conditions: Mapping[str, Any]) -> None:
        self.rate, self.loop, self.conditions = rate, loop, conditions

    def see(self, index: int, frame_HWC: Frame) -> None: ...

    def scores(self) -> dict[str, Score]:
        return {NAME: Score(self.rate, self.conditions), LOOP: Score(self.loop, self.conditions)}


class _Scorer:
    """Pixel frames per second, decoding to pixels included, and those of the loop alone; older sidecars have only the
    first.

    Source: `astro sample`'s sidecar, `frames_per_second` and `loop_frames_per_second`.
    **Deviations:** papers time a warm single stream on an H100; the record says the device of the evaluation, the
    details of each score that of the sampling. `astro bench sample` times a warm stream.
    """

    def watch(self, sample: Sample) -> _Watcher:
        table = sidecar(sample)
        rate, loop = _rate(table.get(FIELD)), _rate(table.get(LOOP_FIELD))
        if rate is None:
            raise ScoreError(
                sample.path.with_suffix(".json"), FIELD, "not stated beside the video", hint="`astro sample` writes it"
            )
        return _Watcher(rate, loop, {key: table[key] for key in CONDITIONS if key in table})


def _rate(value: Any) -> float | None:
    """A finite rate above 0, None of anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    return None


def _build(config: ThroughputConfig, loaded: NetworkCache) -> _Scorer:
    return _Scorer()


SCORER = Declaration(
    metrics=(
        MetricInfo(NAME, "up", "frames per second", "speed of generation with decoding, from the sidecar"),
        MetricInfo(LOOP, "up", "frames per second", "speed of the loop without decoding, from the sidecar"),
    ),
    config=ThroughputConfig,
    version=1,
    build=_build,
    sees=False,
    reads=sidecars_of,
)

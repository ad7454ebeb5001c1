"""Long-CLIP score per segment, for prompts of up to 248 tokens. The scoring is `clip`'s; only tower and limits
differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from astro_cli.config.base import Config
from eval.contract import Declaration, NetworkCache
from eval.metrics.clip import SegmentScorer, segment_metrics
from eval.networks.clip_names import clip_need, file_names
from eval.networks.weights_paths import require

NAME = "long_clip"


class LongClipConfig(Config):
    """As ClipConfig; beyond 248 tokens the official tokeniser refuses, and so does the default."""

    model: Literal["longclip-B", "longclip-L"] = "longclip-L"
    rate: float = Field(1.0, gt=0)
    segment_seconds: float = Field(10.0, gt=0)
    too_long: Literal["cut", "refuse"] = "refuse"


def _build(config: LongClipConfig, loaded: NetworkCache) -> SegmentScorer:
    """Source: Delta Forcing 2605.14382v1, Table 1; Long-CLIP 2403.15378.

    **Deviations:** the size is not published (ours: L); sampling as in `SegmentScorer`.
    """
    from eval.networks.clip import shared

    return SegmentScorer(NAME, shared(loaded, config.model), config.rate, config.segment_seconds, config.too_long)


def _files(config: LongClipConfig) -> tuple[Path, ...]:
    return (require(*file_names(config.model)),)


SCORER = Declaration(
    metrics=segment_metrics(NAME, "Long-CLIP with the segment's own prompt"),
    config=LongClipConfig,
    version=1,
    build=_build,
    needs=(clip_need("longclip-L"),),
    files=_files,
)

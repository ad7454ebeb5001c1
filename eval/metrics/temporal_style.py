"""VBench's temporal style: how well ViCLIP matches the video with its prompt."""

from __future__ import annotations

from eval.contract import NetworkCache, Scorer
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.vbench_files import PACKAGE, need

NAME = "temporal_style"


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """See `ViclipScorer`; vbench 0.1.5, temporal_style.py."""
    from eval.vbench.viclip import ViclipScorer

    return ViclipScorer(NAME, loaded)


SCORER = declare(
    NAME,
    "VBench: ViCLIP similarity of video and prompt",
    _build,
    unit="cosine",
    needs=(PACKAGE, need("viclip")),
    files=("viclip",),
)

"""VBench's dynamic degree: whether a video moves, by the largest optical flow in it."""

from __future__ import annotations

from eval.contract import NetworkCache, Scorer
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.vbench_files import PACKAGE, need

NAME = "dynamic_degree"


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """See `eval.vbench.motion.DynamicScorer`."""
    from eval.vbench.motion import DynamicScorer
    from eval.vbench.networks import raft

    return DynamicScorer(NAME, raft(loaded))


SCORER = declare(
    NAME,
    "VBench: 1 where enough frames have a large optical flow, else 0 (RAFT)",
    _build,
    unit="0 or 1",
    needs=(PACKAGE, need("raft")),
    files=("raft",),
)

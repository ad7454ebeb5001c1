"""VBench's human action: whether a classifier of actions sees the one that the prompt asks for."""

from __future__ import annotations

from eval.contract import NetworkCache, Scorer
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.vbench_files import PACKAGE, need

NAME = "human_action"


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """See `eval.vbench.actions.ActionScorer`."""
    from eval.vbench.actions import ActionScorer
    from eval.vbench.networks import umt

    return ActionScorer(NAME, umt(loaded))


SCORER = declare(
    NAME,
    "VBench: 1 where UMT sees the prompt's action, else 0",
    _build,
    unit="0 or 1",
    needs=(PACKAGE, need("umt")),
    files=("umt",),
)

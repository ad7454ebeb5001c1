"""VBench's motion smoothness: how well a network that interpolates frames guesses every other frame from its
neighbours.
"""

from __future__ import annotations

from eval.contract import NetworkCache, Scorer
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.vbench_files import PACKAGE, need

NAME = "motion_smoothness"


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """See `eval.vbench.smoothness.SmoothnessScorer`."""
    from eval.vbench.networks import amt
    from eval.vbench.smoothness import SmoothnessScorer

    return SmoothnessScorer(NAME, amt(loaded))


SCORER = declare(
    NAME,
    "VBench: 1 - error of frames interpolated by AMT-S / 255",
    _build,
    needs=(PACKAGE, need("amt")),
    files=("amt",),
)

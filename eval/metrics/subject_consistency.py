"""VBench's subject consistency: how alike DINO finds neighbouring frames, and each frame and the first.

Dimensions: N frame, H, W pixel rows and columns, C colour channel, D feature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eval.contract import Need, NetworkCache, Scorer
from eval.vbench.dimension import SlowFastConfig, declare
from eval.vbench.long import Long
from eval.vbench.vbench_files import need, path_of, table

NAME = "subject_consistency"
TABLE = "subject_mapping_table.yaml"


class SubjectConfig(SlowFastConfig):
    """VBench-Long's own choice for `fast` is "dinov2"."""

    fast: Literal["none", "dino", "dinov2"] = "none"  # pyright: ignore[reportIncompatibleVariableOverride] - narrower, and frozen


def _build(config: SubjectConfig, loaded: NetworkCache) -> Scorer:
    """Mean over n >= 1 of (cos(f_n, f_n-1) + cos(f_n, f_0)) / 2; f: class token of DINO ViT-B/16, frames 224 pixels
    high, not cropped.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, subject_consistency.py.
    **Deviations:** our DINO reads the released file, vbench runs a checkout through torch.hub. VBench's number for a
    set of videos weighs each by its frames; a video's own number is the same, and its frames are kept beside it.
    """
    from eval.vbench.features import features_of
    from eval.vbench.scorers import ConsistencyScorer

    return ConsistencyScorer(NAME, features_of(loaded, "dino"))


def _fuse(config: SubjectConfig, loaded: NetworkCache, long: Long) -> Scorer:
    """Source: vbench 0.1.5, vbench2_beta_long/subject_consistency.py. **Deviations:** DINO and DINOv2 as above; those
    of `SlowFast`.
    """
    from eval.vbench.features import features_of
    from eval.vbench.slow_fast import SlowFast, read_table

    if config.fast == "none":
        return long
    return SlowFast(long, features_of(loaded, config.fast), read_table(table(TABLE)), config.fast_weight)


def _fuse_files(config: SubjectConfig) -> tuple[Path, ...]:
    return () if config.fast == "none" else (path_of(config.fast), table(TABLE))


def _fuse_needs(config: SubjectConfig) -> tuple[Need, ...]:
    return (need("dinov2"),) if config.fast == "dinov2" else ()


SCORER = declare(
    NAME,
    "VBench: DINO similarity of neighbouring frames and to the first",
    _build,
    needs=(need("dino"),),
    files=("dino",),
    config=SubjectConfig,
    fuse=_fuse,
    fuse_files=_fuse_files,
    config_needs=_fuse_needs,
)

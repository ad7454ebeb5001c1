"""VBench's background consistency: how alike CLIP finds neighbouring frames, and each frame and the first.

The subject is not cut out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eval.contract import Need, NetworkCache, Scorer
from eval.networks.dreamsim_names import dreamsim_files, dreamsim_need
from eval.vbench.dimension import SlowFastConfig, declare
from eval.vbench.long import Long
from eval.vbench.vbench_files import need, path_of, table

NAME = "background_consistency"
TABLE = "background_mapping_table.yaml"


class BackgroundConfig(SlowFastConfig):
    """VBench-Long's own choice for `fast` is "dreamsim"; "clip" is its other one, its table was not measured with
    it.
    """

    fast: Literal["none", "clip", "dreamsim"] = "none"  # pyright: ignore[reportIncompatibleVariableOverride] - narrower, and frozen


def _build(config: BackgroundConfig, loaded: NetworkCache) -> Scorer:
    """Mean over n >= 1 of (cos(f_n, f_n-1) + cos(f_n, f_0)) / 2; f: CLIP ViT-B/32 of the centre, resized without
    antialiasing.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, background_consistency.py.
    **Deviations:** float32 (OpenAI's loader takes float16 on a GPU). VBench's number for a set of videos weighs each by
    its frames; a video's own number is the same, and its frames are kept beside it.
    """
    from eval.vbench.features import features_of
    from eval.vbench.scorers import ConsistencyScorer

    return ConsistencyScorer(NAME, features_of(loaded, "clip"))


def _fuse(config: BackgroundConfig, loaded: NetworkCache, long: Long) -> Scorer:
    """Source: vbench 0.1.5, vbench2_beta_long/background_consistency.py.

    **Deviations:** those of `eval.networks.dreamsim` and `SlowFast`.
    """
    from eval.vbench.features import features_of
    from eval.vbench.slow_fast import SlowFast, read_table

    if config.fast == "none":
        return long
    return SlowFast(long, features_of(loaded, config.fast), read_table(table(TABLE)), config.fast_weight)


def _fuse_files(config: BackgroundConfig) -> tuple[Path, ...]:
    networks = (*dreamsim_files(), path_of("dino")) if config.fast == "dreamsim" else ()
    return () if config.fast == "none" else (*networks, table(TABLE))


def _fuse_needs(config: BackgroundConfig) -> tuple[Need, ...]:
    return (dreamsim_need(), need("dino")) if config.fast == "dreamsim" else ()


SCORER = declare(
    NAME,
    "VBench: CLIP similarity of neighbouring frames and to the first",
    _build,
    needs=(need("clip_b32"),),
    files=("clip_b32",),
    config=BackgroundConfig,
    fuse=_fuse,
    fuse_files=_fuse_files,
    config_needs=_fuse_needs,
)

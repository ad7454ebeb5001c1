"""VBench-I2V's background consistency: how alike DreamSim finds the video and the image it starts from.

The subject is not cut out.
"""

from __future__ import annotations

from pathlib import Path

from eval.contract import NetworkCache, Scorer
from eval.networks.dreamsim_names import dreamsim_files, dreamsim_need
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.images import images_of
from eval.vbench.vbench_files import need

NAME = "i2v_background"


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """0.4 max cos(image, f_n) + 0.3 mean cos(f_n-1, f_n) + 0.3 min cos(f_n-1, f_n); f: DreamSim's embedding of the
    frame squeezed to 224 x 224.

    Source: VBench++, arXiv 2411.13503; vbench 0.1.5, vbench2_beta_i2v/i2v_background.py.
    **Deviations:** our DreamSim reads the released files, vbench calls the dreamsim package; see
    `eval.networks.dreamsim`.
    """
    from eval.vbench.features import features_of, picture_features
    from eval.vbench.scorers import ConformityScorer

    return ConformityScorer(NAME, features_of(loaded, "dreamsim"), picture_features(loaded, "dreamsim"))


def _dreamsim_files(config: DimensionConfig) -> tuple[Path, ...]:
    return dreamsim_files()


SCORER = declare(
    NAME,
    "VBench-I2V: DreamSim similarity of the video and its image",
    _build,
    needs=(dreamsim_need(), need("dino")),
    files=("dino",),
    fuse_files=_dreamsim_files,
    reads=images_of,
)

"""VBench-I2V's subject consistency: how alike DINO finds the video and the image it starts from."""

from __future__ import annotations

from eval.contract import NetworkCache, Scorer
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.images import images_of
from eval.vbench.vbench_files import need

NAME = "i2v_subject"


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """0.4 max cos(image, f_n) + 0.3 mean cos(f_n-1, f_n) + 0.3 min cos(f_n-1, f_n); f: class token of DINO ViT-B/16 of
    the centre.

    Source: VBench++, arXiv 2411.13503; vbench 0.1.5, vbench2_beta_i2v/i2v_subject.py.
    **Deviations:** our DINO reads the released file, vbench runs a checkout through torch.hub.
    """
    from eval.vbench.features import features_of, picture_features
    from eval.vbench.scorers import ConformityScorer

    return ConformityScorer(NAME, features_of(loaded, "dino_centre"), picture_features(loaded, "dino_centre"))


SCORER = declare(
    NAME,
    "VBench-I2V: DINO similarity of the video and its image",
    _build,
    needs=(need("dino"),),
    files=("dino",),
    reads=images_of,
)

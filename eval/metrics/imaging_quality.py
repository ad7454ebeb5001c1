"""VBench's imaging quality: MUSIQ on every frame."""

from __future__ import annotations

from typing import Literal

from eval.contract import NetworkCache, Scorer
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.vbench_files import PYIQA, need, require

NAME = "imaging_quality"
SCALE = 100.0  # MUSIQ-SPAQ's range


class ImagingConfig(DimensionConfig):
    """`resize`: the side of a frame that is brought down to 512 pixels, if longer; "longer" is VBench's default."""

    resize: Literal["longer", "shorter", "shorter_centercrop", "none"] = "longer"


def _build(config: ImagingConfig, loaded: NetworkCache) -> Scorer:
    """Mean over frames of MUSIQ trained on SPAQ, / 100.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, imaging_quality.py.
    **Deviations:** a video's score is a fraction too; vbench's JSON has fractions for the set and 0..100 for a video.
    """
    from eval.networks.musiq import ImagingQuality
    from eval.vbench.scorers import MeanScorer

    path = require("musiq")
    quality = loaded.get(("musiq", path, config.resize), lambda: ImagingQuality(path, config.resize))
    return MeanScorer(NAME, lambda sample: lambda frames_NHWC: quality(frames_NHWC) / SCALE)


SCORER = declare(
    NAME,
    "VBench: MUSIQ's quality of the frames / 100",
    _build,
    needs=(PYIQA, need("musiq")),
    files=("musiq",),
    config=ImagingConfig,
)

"""VBench's aesthetic quality: LAION's predictor on every frame."""

from __future__ import annotations

from eval.contract import NetworkCache, Scorer
from eval.vbench.dimension import DimensionConfig, declare
from eval.vbench.vbench_files import need

NAME = "aesthetic_quality"
SCALE = 10.0  # LAION's scores run to about 10


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """Mean over frames of linear(f) / 10; f: normalised CLIP ViT-L/14 of the centre, resized without antialiasing.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, aesthetic_quality.py.
    **Deviations:** float32 (OpenAI's loader takes float16 on a GPU).
    """
    import torch
    from torch.nn import functional

    from eval.vbench.frames import as_float_NCHW
    from eval.vbench.networks import aesthetic_head, clip_tower, on
    from eval.vbench.pictures import clip_input
    from eval.vbench.scorers import MeanScorer

    tower, head = clip_tower(loaded, "clip_l14").model, aesthetic_head(loaded)

    @torch.no_grad()
    def score(frames_NHWC):
        features_ND = functional.normalize(
            tower.encode_image(on(tower, clip_input(as_float_NCHW(frames_NHWC)))), dim=-1
        )
        return head(features_ND)[:, 0] / SCALE

    return MeanScorer(NAME, lambda sample: score)


SCORER = declare(
    NAME,
    "VBench: LAION's aesthetic score of the frames / 10",
    _build,
    needs=(need("clip_l14"), need("aesthetic")),
    files=("clip_l14", "aesthetic"),
)

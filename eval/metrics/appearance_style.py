"""VBench's appearance style: how well CLIP matches every frame with the style that the prompt asks for."""

from __future__ import annotations

from eval.contract import NetworkCache, Sample, Scorer
from eval.vbench.dimension import DimensionConfig, auxiliary, declare
from eval.vbench.vbench_files import need

NAME = "appearance_style"
SCALE = 100.0


def _build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
    """Mean over frames of exp(logit scale) cos(f, style) / 100, CLIP ViT-B/32; style: the prompt set's phrase, e.g.
    "Van Gogh style".

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, appearance_style.py.
    **Deviations:** all frames of all videos, as vbench on one GPU; on several it averages each video's last frame.
    float32.
    """
    from eval.vbench.networks import clip_tower
    from eval.vbench.scorers import MeanScorer

    tower = clip_tower(loaded, "clip_b32")
    scale = float(tower.model.logit_scale.exp()) / SCALE

    def per_frame(sample: Sample):
        style_1D = tower.texts([auxiliary(sample, NAME)[NAME]], "refuse", sample.path).features_MD
        return lambda frames_NHWC: (tower.images(frames_NHWC, "pil") @ style_1D.T)[:, 0] * scale

    return MeanScorer(NAME, per_frame)


SCORER = declare(
    NAME,
    "VBench: CLIP similarity of the frames and the style",
    _build,
    unit="cosine",
    needs=(need("clip_b32"),),
    files=("clip_b32",),
)

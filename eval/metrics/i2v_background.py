"""VBench-I2V's background consistency: how alike DreamSim finds the video and the image it starts from. Runs in another interpreter.

0.4 max cos(image, f_n) + 0.3 mean cos(f_n-1, f_n) + 0.3 min cos(f_n-1, f_n); f: DreamSim's embedding of the frame squeezed to 224 x 224.

Source: VBench++, arXiv 2411.13503; vbench 0.1.5, vbench2_beta_i2v/i2v_background.py.
**Deviations:** none: the official code computes it, in an interpreter of its own that has dreamsim, which does not install beside current libraries.
"""

from __future__ import annotations

from eval.metrics.base import Declaration, MetricInfo, Scorer, Towers
from eval.vbench.images import image_of
from eval.vbench.isolated import IsolatedConfig, IsolatedScorer, need, shared_worker

NAME = "i2v_background"


def _build(config: IsolatedConfig, towers: Towers) -> Scorer:
    return IsolatedScorer(NAME, None, shared_worker(towers), lambda sample: {"image": str(image_of(sample).resolve())})


SCORER = Declaration(
    metrics=(MetricInfo(NAME, "up", "0..1", "VBench-I2V: DreamSim similarity of the video and its image"),),
    config=IsolatedConfig, version=1, build=_build, needs=(need("dreamsim"),), sees=False,
)  # fmt: skip

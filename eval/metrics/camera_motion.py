"""VBench-I2V's camera motion: whether the camera moves as the prompt asks. Declared, but CoTracker does not run here."""

from __future__ import annotations

from astro_cli.config.errors import RunError
from eval.metrics.base import Need, Scorer, Towers
from eval.vbench.dimension import DimensionConfig, declare

NAME = "camera_motion"
WHY = "not run: needs CoTracker2 (facebookresearch/co-tracker through torch.hub), which vbench 0.1.5 lacks; `astro eval ingest` reads the official \
tool's results"


def _build(config: DimensionConfig, towers: Towers) -> Scorer:
    """Source: vbench 0.1.5, vbench2_beta_i2v/camera_motion.py. **Deviations:** it is not run; this always refuses, with what is missing.

    Raises:
        RunError: always.
    """
    raise RunError("vbench-i2v", NAME, WHY)


SCORER = declare(NAME, "VBench-I2V: share of videos whose camera moves as asked (CoTracker)", _build, needs=(Need("CoTracker", lambda: WHY),))

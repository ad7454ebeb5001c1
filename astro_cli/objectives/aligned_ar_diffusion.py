"""AR diffusion (`ar_diffusion`) with representation alignment: states of the clean and of the noisy blocks also have
to say where the object is. The embedded world only.

Source: Causal-Forcing (arXiv 2602.02214), stage 1; representation alignment: REPA (arXiv 2410.06940), Eq. 8.
"""

from __future__ import annotations

from astro_cli.objectives import ar_diffusion
from astro_cli.objectives.representation_alignment import Aligned, AlignmentConfig


class Config(ar_diffusion.Config, AlignmentConfig):
    pass


class Objective(Aligned, ar_diffusion.Objective):
    config: Config

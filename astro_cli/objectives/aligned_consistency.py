"""Consistency distillation (`consistency`) with representation alignment of the student. The embedded world only.

Source: Causal-Forcing (arXiv 2602.02214), stage 2b; representation alignment: REPA (arXiv 2410.06940), Eq. 8.
"""

from __future__ import annotations

from astro_cli.objectives import consistency
from astro_cli.objectives.representation_alignment import Aligned, AlignmentConfig


class Config(consistency.Config, AlignmentConfig):
    pass


class Objective(Aligned, consistency.Objective):
    config: Config

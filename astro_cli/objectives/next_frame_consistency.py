"""Consistency distillation of a next-frame model to one step. The second stage of AAPT.

    x_s' = x_s + (s' - s) v_teacher(x_s);   L = mean || x0_theta(x_s, s) - stopgrad x0_theta(x_s', s') ||^2

on 32 fixed levels, uniform before the shift, without guidance, without a moving average of the target, and teacher
forced: recycled frames are the true ones. At s' = 0 the target is the clean end of the teacher's step.
Source: AAPT (arXiv 2506.09350), supplement D, "Consistency Distillation".

**Deviations**: as in `consistency` and `rollout.next_frame`. The level is drawn per clip, as in the stage before.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from astro_cli.core.flow import timestep_of
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import consistency
from astro_cli.objectives.base import Batch
from astro_cli.objectives.next_frame import check_next_frame
from astro_cli.rollout.next_frame import conditions, forced_velocity
from astro_cli.spec import Recipe, StageSpec


class Config(consistency.Config):
    """As `consistency`, with AAPT's values."""

    grid: int = Field(default=32, gt=1)
    guidance: float = Field(default=1.0, ge=0)
    decay: float = Field(default=0.0, ge=0, lt=1)


class Objective(consistency.Objective):
    gaps = False  # frame after frame, no first block
    config: Config

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        check_next_frame(recipe, stage, key)

    def targets(self, clean_BFCHW: torch.Tensor) -> torch.Tensor:
        return clean_BFCHW[:, 1:]

    def given(self, batch: Batch) -> torch.Tensor:
        """The extra channels of all passes."""
        assert self.run_context.recycle is not None
        return conditions(super().given(batch), self.run_context.recycle, batch.moves_BF2)

    def velocity(
        self,
        network: CausalWan,
        x_BFCHW: torch.Tensor,
        sigma_BF: torch.Tensor,
        text_BMD: torch.Tensor,
        given_BFCHW: torch.Tensor,
    ) -> torch.Tensor:
        text, cache = network.encode_text(text_BMD), self.run_context.cache
        return forced_velocity(network, x_BFCHW, timestep_of(sigma_BF), text, given_BFCHW, cache.window, cache.sink)

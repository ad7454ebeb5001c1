"""Causal ODE distillation: regression on trajectories of the autoregressive teacher. Stage 2a of Causal-Forcing.

    dx = v ds from sigma 1 to 0,   v = u + g (c - u) by the AR teacher, every block given the clean blocks before it
    L = mean || x0_theta(x_t, t | clean context, c) - x_end ||^2,   one of the student's steps t for all of a sample

The clean context is the clip of the training data, in the teacher's passes and in the student's.
Source: Causal-Forcing (arXiv 2602.02214), causal ODE distillation; its released code.

**Deviations**: none from the paper. The released script takes 48 steps and stores every twelfth state; here the grid is
made to hold the student's steps exactly. The teacher is the student as it was when the stage began (the AR model that
stage 1 made).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import guide, sigma_of, x0_from_velocity
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.ar_diffusion import forced_velocity
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.sampling.ode import euler, grid_through

PAIR_BATCH = 32  # trajectories integrated at once


class Config(BaseConfig):
    """`pairs` clips get a trajectory of about `steps` Euler steps each, with the teacher's `guidance`.

    Released for Wan 1.3B: 48 steps, guidance 6.
    """

    pairs: int = Field(default=512, gt=0)
    steps: int = Field(default=48, gt=0)
    guidance: float = Field(default=6.0, ge=0)


class Objective(BaseObjective):
    excludes = ("ema", "relative")
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.teacher = copy.deepcopy(run_context.roles.modules["student"]).requires_grad_(False)
        self.states: torch.Tensor | None = None  # (P, S + 1, F, C, H, W), the last one the end point

    def prepare(self, batches: Callable[[str, int], Batch]) -> None:
        self.pairs = batches("causal_ode_pairs", self.config.pairs)

    def velocity(
        self,
        network: CausalWan,
        x: torch.Tensor,
        timestep_BF: torch.Tensor,
        text_BMD: torch.Tensor,
        clean: torch.Tensor,
    ) -> torch.Tensor:
        """Velocity (B, F, C, H, W) of every block given the clean blocks before it."""
        text, context = network.encode_text(text_BMD), self.run_context
        return forced_velocity(network, x, timestep_BF, text, clean, context.block, context.cache)

    @torch.no_grad()
    def trajectories(self, pairs: Batch) -> torch.Tensor:
        """The teacher's states (B, S + 1, F, C, H, W) at the student's S steps, and the end points."""
        clean, text_BMD = pairs.latents_BFCHW, pairs.text_BMD
        assert clean is not None
        assert text_BMD is not None
        empty_BMD = self.run_context.empty_text(text_BMD)
        teacher: CausalWan = self.teacher  # type: ignore[assignment]

        def guided(x: torch.Tensor, timestep_BF: torch.Tensor) -> torch.Tensor:
            conditional = self.velocity(teacher, x, timestep_BF, text_BMD, clean)
            unconditional = self.velocity(teacher, x, timestep_BF, empty_BMD, clean)
            return guide(conditional, unconditional, self.config.guidance)

        sigmas, kept = grid_through(self.run_context.steps, self.config.steps, self.run_context.shift)
        with self.run_context.section("teacher"):
            end, states = euler(guided, pairs.noise_like(clean, "x_T"), sigmas, kept)
        return torch.stack((*states, end), 1)

    def _integrate(self) -> torch.Tensor:
        """All pairs' trajectories; made by the first loss, since a run that resumes has its teacher only then."""
        starts, device = range(0, len(self.pairs), PAIR_BATCH), self.run_context.device
        parts = [self.pairs.rows(start, start + PAIR_BATCH).to(device) for start in starts]
        return torch.cat([self.trajectories(part) for part in parts])

    def loss(self, role: str, batch: Batch) -> LossOutput:
        if self.states is None:
            self.states = self._integrate()
        context, clean, text_BMD = self.run_context, self.pairs.latents_BFCHW, self.pairs.text_BMD
        assert clean is not None
        assert text_BMD is not None
        row = (batch.uniform(1, "pair")[:, 0] * len(self.states)).long()
        step = (batch.uniform(1, "step")[:, 0] * len(context.steps)).long()
        x_t, target = self.states[row, step], self.states[row, -1]
        timestep_BF = context.steps[step].float().to(x_t.device)[:, None].expand(x_t.shape[:2])
        with context.roles.use(role) as network:
            v = self.velocity(network, x_t, timestep_BF, text_BMD[row].to(x_t.device), clean[row].to(x_t.device))
        return LossOutput((x0_from_velocity(x_t, v, sigma_of(timestep_BF)) - target).float().pow(2).mean())

    def state(self) -> dict[str, torch.Tensor]:
        """The teacher, which made the trajectories."""
        return dict(self.teacher.state_dict())

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.teacher.load_state_dict(state)

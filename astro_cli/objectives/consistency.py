"""Causal consistency distillation: neighbouring points of the teacher's trajectory must give one x0. Stage 2b of
Causal-Forcing.

    x_t = (1 - s) x0 + s eps;  v = u + g (c - u) by the AR teacher;  x_t' = x_t + (s' - s) v
    L = mean || x0_theta(x_t, t) - stopgrad x0_ema(x_t', t') ||^2,   every pass given the clean blocks before it

Source: Causal-Forcing (arXiv 2602.02214) for the method; its released code, "causal CD". At s' = 0 the target is x_t'
itself.

Deviations: the last interval (to s' = 0) is drawn too, where the released code never draws it; the interval is drawn
per sample, not per process. The teacher is the student as it was when the stage began (the AR model that stage 1 made).
"""

from __future__ import annotations

import copy

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, guide, timestep_of, x0_from_velocity
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.ar_diffusion import forced_velocity
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.sampling.ode import sigma_grid


class Config(BaseConfig):
    """`grid` intervals of the trajectory, guidance of the teacher, decay of the target's moving average."""

    grid: int = Field(default=48, gt=1)
    guidance: float = Field(default=3.0, ge=0)
    decay: float = Field(default=0.99, ge=0, lt=1)


class Objective(BaseObjective):
    excludes = ("ema", "relative")
    gaps = True
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        student = run_context.roles.modules["student"]
        assert isinstance(student, CausalWan)
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.target = copy.deepcopy(student).requires_grad_(False)
        self.sigmas = sigma_grid(config.grid, run_context.shift).float()

    def targets(self, clean_BFCHW: torch.Tensor) -> torch.Tensor:
        """The frames of clean clips that are made."""
        return clean_BFCHW

    def given(self, batch: Batch) -> torch.Tensor:
        """What `velocity` is given beside the noisy frames: the clean clips."""
        assert batch.latents_BFCHW is not None
        return batch.latents_BFCHW

    def velocity(
        self,
        network: CausalWan,
        x_BFCHW: torch.Tensor,
        sigma_BF: torch.Tensor,
        text_BMD: torch.Tensor,
        given_BFCHW: torch.Tensor,
    ) -> torch.Tensor:
        """A network's velocity of these frames, given the clean ones before each block."""
        block, cache = self.run_context.block, self.run_context.cache
        text = network.encode_text(text_BMD)
        return forced_velocity(network, x_BFCHW, timestep_of(sigma_BF), text, given_BFCHW, block, cache)

    def loss(self, role: str, batch: Batch) -> LossOutput:
        clean, text_BMD = batch.latents_BFCHW, batch.text_BMD
        assert clean is not None
        assert text_BMD is not None
        x0, given = self.targets(clean), self.given(batch)
        index = (batch.uniform(1, "interval") * self.config.grid).long()
        sigma, sigma_next = (self.sigmas[i].to(x0.device).expand(-1, x0.shape[1]) for i in (index, index + 1))
        x_t = add_noise(x0, batch.noise_like(x0, "noise"), sigma)
        with torch.no_grad():
            v = self.velocity(self.teacher, x_t, sigma, text_BMD, given)
            if self.config.guidance != 1:
                empty = self.run_context.empty_text(text_BMD)
                v = guide(v, self.velocity(self.teacher, x_t, sigma, empty, given), self.config.guidance)
            x_next = x_t + (sigma_next - sigma)[..., None, None, None] * v
            v_next = self.velocity(self.target, x_next, sigma_next, text_BMD, given)
            target = x0_from_velocity(x_next, v_next, sigma_next)
        with self.run_context.roles.use(role) as network:
            predicted = x0_from_velocity(x_t, self.velocity(network, x_t, sigma, text_BMD, given), sigma)
        return LossOutput(batch.mean_error((predicted - target).float().pow(2)))

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, float]:
        student = self.run_context.roles.modules["student"]
        for target, new in zip(self.target.parameters(), student.parameters(), strict=True):
            target.lerp_(new, 1 - self.config.decay)
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        parts = {"teacher": self.teacher, "target": self.target}
        return {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        for part, module in (("teacher", self.teacher), ("target", self.target)):
            module.load_state_dict(
                {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
            )

"""Forward-process RL: negative-aware fine-tuning on scored clips. Astrolabe's policy loss; needs no likelihood and no trajectory.

    r = clip(A / A_max, -1, 1) / 2 + 1/2
    v+ = (1 - beta) v_old + beta v_theta,   v- = (1 + beta) v_old - beta v_theta          (Eq. 1)
    L  = r || v+ - v_target ||^2 + (1 - r) || v- - v_target ||^2,   v_target = eps - x0     (Eq. 2)

t is drawn from the student's warped steps, per block; every block is conditioned on the clean blocks before it, through keys and values that
theta_old computed once and both policies share: the cache C_n, frozen.
Source: Astrolabe (arXiv 2603.17051) Eq. 1, 2, 4, Algorithm 1; DiffusionNFT (arXiv 2509.16117); reference, section 7.

Deviations from the paper: Algorithm 1 line 27 writes x0 where Eq. 2 has v_target; Eq. 2 is followed. From the released code: velocities, not x0
(which weights by sigma^2); warped timesteps; the student's own block size (released: masked per single frame); clean context (released: none);
theta_old by moving average with a fixed rate (released: a ramp). No adaptive weighting, as the paper argues.
"""

from __future__ import annotations

import torch
from pydantic import Field

from astro_cli.cache.context import FrozenContext
from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, sigma_of, velocity_target, x0_from_velocity
from astro_cli.core.stats import per_sample_mse
from astro_cli.models import lora
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.objectives.base import Objective as BaseObjective


class Config(BaseConfig):
    """Interpolation strength beta, advantage bound A_max, share of theta_old kept per step (gamma)."""

    beta: float = Field(default=1.0, gt=0)
    advantage_max: float = Field(default=5.0, gt=0)
    old_decay: float = Field(default=0.9, ge=0, le=1)


def optimality(credit_B: torch.Tensor, advantage_max: float) -> torch.Tensor:
    """r = clip(A / A_max, -1, 1) / 2 + 1/2, in [0, 1]."""
    return (credit_B / advantage_max).clamp(-1, 1) / 2 + 0.5


def implicit_velocities(v_theta: torch.Tensor, v_old: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(v+, v-) of Eq. 1."""
    return (1 - beta) * v_old + beta * v_theta, (1 + beta) * v_old - beta * v_theta


def policy_loss(v_theta: torch.Tensor, v_old: torch.Tensor, v_target: torch.Tensor, r_B: torch.Tensor, beta: float) -> torch.Tensor:
    """(B,) loss of Eq. 2; squared norms are means over a sample's entries."""
    positive, negative = implicit_velocities(v_theta, v_old, beta)
    return r_B * per_sample_mse(positive, v_target) + (1 - r_B) * per_sample_mse(negative, v_target)


class Objective(BaseObjective):
    needs = ("old",)
    consumes = "experience"
    config: Config

    def loss(self, role: str, batch: Batch) -> LossOutput:
        x0, credit = batch.latents_BFCHW, batch.credit_B
        assert x0 is not None
        assert credit is not None
        assert batch.text_BMD is not None
        setting = self.setting
        timestep_BF = self._timesteps(batch, x0.shape[1]).to(x0.device)
        sigma_BF = sigma_of(timestep_BF)
        noise = batch.noise_like(x0, "noise")
        x_t = add_noise(x0, noise, sigma_BF)
        with torch.no_grad(), setting.roles.use("old") as old:
            text = old.encode_text(batch.text_BMD)
            context = FrozenContext(old, text, x0, setting.block, setting.cache.window, setting.cache.sink)
            v_old = context.velocity(old, x_t, timestep_BF, text)
        with setting.roles.use(role) as network:
            v_theta = context.velocity(network, x_t, timestep_BF, network.encode_text(batch.text_BMD))
        r = optimality(credit, self.config.advantage_max)
        loss = policy_loss(v_theta, v_old, velocity_target(x0, noise), r, self.config.beta).mean()
        return LossOutput(loss, self._metrics(v_theta.detach(), v_old, x_t, sigma_BF, r))

    def _timesteps(self, batch: Batch, frames: int) -> torch.Tensor:
        """(B, F) warped distillation steps, one draw per block."""
        steps = self.setting.steps
        index = (batch.uniform(frames // self.setting.block, "timestep") * len(steps)).long()
        return steps[index].float().repeat_interleave(self.setting.block, 1)

    @torch.no_grad()
    def _metrics(self, v_theta: torch.Tensor, v_old: torch.Tensor, x_t: torch.Tensor, sigma_BF: torch.Tensor, r: torch.Tensor) -> dict[str, float]:
        x0 = x0_from_velocity(x_t, v_theta, sigma_BF)
        return {
            "old_deviation": per_sample_mse(v_theta, v_old).mean().item(),
            "x0_norm": x0.pow(2).mean().sqrt().item(),
            "r_clipped": ((r <= 0) | (r >= 1)).float().mean().item(),
        }

    def after_step(self, step: int) -> dict[str, float]:
        """theta_old <- gamma theta_old + (1 - gamma) theta (Alg. 1, line 38)."""
        lora.blend(self.setting.roles.modules["student"], "old", lora.TRAINED, self.config.old_decay)
        return {}

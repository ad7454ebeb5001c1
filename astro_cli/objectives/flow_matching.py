"""Flow matching of the bidirectional multi-step teacher: velocity regression with one noise level per clip, or one per
latent frame.

    x_t = (1 - sigma) x0 + sigma eps,   L = mean || v(x_t, t, c) - (eps - x0) ||^2
    sigma = shift u / (1 + (shift - 1) u),   u ~ U(0, 1)

Source: Wan 2.1 (arXiv 2503.20314); noise levels per frame: Diffusion Forcing (arXiv 2407.01392), section 3.1.

**Deviations**: with `mixed_noise` only that share of the clips has independent levels, so that sampling with one level
for all stays in training's reach.
"""

from __future__ import annotations

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, shift_sigma, timestep_of, velocity_target
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective


class Config(BaseConfig):
    """Shares of the samples, and a schedule.

    `drop_text`: trained without their caption, for classifier-free guidance; `mixed_noise`: with a noise level of its
        own for every latent frame.
    `mixed_shift`: flow shift of those levels (1: uniform, so that many frames have nearly clean neighbours); absent:
        the sampler's.
    """

    drop_text: float = Field(default=0.1, ge=0, lt=1)
    mixed_noise: float = Field(default=0.0, ge=0, le=1)
    mixed_shift: float | None = Field(default=None, gt=0)


def masked_text(batch: Batch, share: float, run_context: RunContext) -> torch.Tensor:
    """Text states with a share of the samples' prompts replaced by the empty prompt's."""
    assert batch.text_BMD is not None
    keep = batch.uniform(1, "drop_text").to(batch.text_BMD.device) >= share
    return torch.where(keep[:, :, None], batch.text_BMD, run_context.empty_text(batch.text_BMD))


def noise_levels(
    batch: Batch, frames: int, shift: float, mixed: float = 0.0, mixed_shift: float | None = None
) -> torch.Tensor:
    """(B, F) noise levels: one shifted-uniform draw per clip, or for the share `mixed` of the clips one per latent
    frame.
    """
    sigma_BF = shift_sigma(batch.uniform(1, "sigma"), shift).expand(-1, frames)
    if not mixed:
        return sigma_BF
    alone = batch.uniform(1, "mixed_noise") < mixed
    return torch.where(
        alone,
        shift_sigma(batch.uniform(frames, "frame_sigma"), shift if mixed_shift is None else mixed_shift),
        sigma_BF,
    )


class Objective(BaseObjective):
    shards = True
    config: Config

    def loss(self, role: str, batch: Batch) -> LossOutput:
        return LossOutput(self.squared_error(role, batch).mean())

    def squared_error(self, role: str, batch: Batch) -> torch.Tensor:
        """(B, F, C, H, W) of a role's velocity, in float32."""
        x0 = batch.latents_BFCHW
        assert x0 is not None
        sigma_BF = noise_levels(
            batch, x0.shape[1], self.run_context.shift, self.config.mixed_noise, self.config.mixed_shift
        ).to(x0.device)
        noise = batch.noise_like(x0, "noise")
        with self.run_context.roles.use(role) as network:
            text = network.encode_text(masked_text(batch, self.config.drop_text, self.run_context))
            v = network(add_noise(x0, noise, sigma_BF), timestep_of(sigma_BF), text)
        return (v - velocity_target(x0, noise)).float().pow(2)

"""Flow matching of the bidirectional multi-step teacher: one noise level per clip, velocity regression.

    x_t = (1 - sigma) x0 + sigma eps,   L = mean || v(x_t, t, c) - (eps - x0) ||^2
    sigma = shift u / (1 + (shift - 1) u),   u ~ U(0, 1)

Source: Wan 2.1 (arXiv 2503.20314). **Deviations**: none.
"""

from __future__ import annotations

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, shift_sigma, timestep_of, velocity_target
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective


class Config(BaseConfig):
    """`drop_text`: share of samples trained without their caption, for classifier-free guidance."""

    drop_text: float = Field(default=0.1, ge=0, lt=1)


def masked_text(batch: Batch, share: float, run_context: RunContext) -> torch.Tensor:
    """Text states with a share of the samples' prompts replaced by the empty prompt's."""
    assert batch.text_BMD is not None
    keep = batch.uniform(1, "drop_text").to(batch.text_BMD.device) >= share
    return torch.where(keep[:, :, None], batch.text_BMD, run_context.empty_text(batch.text_BMD))


class Objective(BaseObjective):
    config: Config

    def loss(self, role: str, batch: Batch) -> LossOutput:
        x0 = batch.latents_BFCHW
        assert x0 is not None
        sigma_BF = shift_sigma(batch.uniform(1, "sigma"), self.run_context.shift).to(x0.device).expand(-1, x0.shape[1])
        noise = batch.noise_like(x0, "noise")
        with self.run_context.roles.use(role) as network:
            text = network.encode_text(masked_text(batch, self.config.drop_text, self.run_context))
            v = network(add_noise(x0, noise, sigma_BF), timestep_of(sigma_BF), text)
        return LossOutput((v - velocity_target(x0, noise)).float().pow(2).mean())

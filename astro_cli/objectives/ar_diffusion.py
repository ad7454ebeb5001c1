"""Autoregressive diffusion by teacher forcing: each block is denoised given the clean blocks before it. Stage 1 of
Causal-Forcing.

    L = mean_F w(sigma) || v(x_t, t | clean context, c) - (eps - x0) ||^2,   one sigma per block

Source: Causal-Forcing (arXiv 2602.02214) and its released code. One pass over [clean ; noisy] under the teacher-forcing
mask, which reproduces cached predictions exactly.

Deviations: sigma is drawn from the shifted uniform law, with weight 1, instead of the 1000-entry grid with the "bsmntw"
weight; t is not rounded to bfloat16.
"""

from __future__ import annotations

import torch
from pydantic import Field

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, shift_sigma, timestep_of, velocity_target
from astro_cli.models.wan.masks import teacher_forcing_mask
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.objectives.flow_matching import masked_text


class Config(BaseConfig):
    """`drop_text`: share of samples trained without their caption."""

    drop_text: float = Field(default=0.1, ge=0, lt=1)


def forced_velocity(
    network: CausalWan,
    x_t: torch.Tensor,
    timestep_BF: torch.Tensor,
    text: TextStates,
    clean: torch.Tensor,
    block: int,
    cache: CacheSpec,
) -> torch.Tensor:
    """Velocity of every block given the clean blocks before it, in one pass over [clean ; noisy]. (B, F, C, H, W)."""
    frames = x_t.shape[1]
    tokens = network.tokens_per_frame(*x_t.shape[-2:])
    mask = teacher_forcing_mask(frames, tokens, block, cache.window, cache.sink).to(x_t.device)
    both = torch.cat((clean, x_t), 1)
    timestep = torch.cat((torch.zeros_like(timestep_BF), timestep_BF), 1)
    return network(both, timestep, text, positions=[*range(frames), *range(frames)], mask=mask)[:, frames:]


def block_sigma(batch: Batch, frames: int, block: int, shift: float) -> torch.Tensor:
    """(B, F) noise levels, one shifted-uniform draw per block."""
    u = batch.uniform(frames // block, "sigma").repeat_interleave(block, 1)
    return shift_sigma(u, shift)


class Objective(BaseObjective):
    excludes = ("ema", "relative")
    gaps = True
    config: Config

    def loss(self, role: str, batch: Batch) -> LossOutput:
        x0 = batch.latents_BFCHW
        assert x0 is not None
        run_context = self.run_context
        sigma_BF = block_sigma(batch, x0.shape[1], run_context.block, run_context.shift).to(x0.device)
        noise = batch.noise_like(x0, "noise")
        with run_context.roles.use(role) as network:
            text = network.encode_text(masked_text(batch, self.config.drop_text, run_context))
            v = forced_velocity(
                network,
                add_noise(x0, noise, sigma_BF),
                timestep_of(sigma_BF),
                text,
                x0,
                run_context.block,
                run_context.cache,
            )
        return LossOutput(batch.mean_error((v - velocity_target(x0, noise)).float().pow(2)))

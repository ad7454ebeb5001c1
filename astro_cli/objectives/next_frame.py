"""Diffusion adaptation: a block-causal next-frame model with the recycled previous frame in extra input channels. The
first stage of AAPT.

    x_t = (1 - s) x + s eps,   s = shift(u), one u ~ U(0, 1) per clip
    L = mean over frames 1 .. F - 1 || v(x_t_i ; x_{i-1} | earlier noisy frames, c) - (eps_i - x_i) ||^2

Teacher forcing: the recycled frames are the true ones. Inputs and targets are shifted by one frame, so the pass at
place i sees frame i and makes frame i + 1. When the stage ends, a discriminator of the recipe takes over its weights.
Source: AAPT (arXiv 2506.09350), supplement D, "Diffusion Adaptation"; shift 24 there.
Dimensions: B sample, F latent frame, C channel, H, W.

**Deviations**: as in `rollout.next_frame`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, shift_sigma, timestep_of, velocity_target
from astro_cli.models.discriminator import Discriminator
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.rollout.next_frame import conditions, forced_velocity
from astro_cli.spec import Recipe, StageSpec

DISCRIMINATOR = "discriminator"


class Config(BaseConfig):
    """No keys of its own."""


def check_next_frame(recipe: Recipe, stage: StageSpec, key: str) -> None:
    """Refuse a model that is no next-frame model.

    Raises:
        ValueError: no recycled input, or clips of one frame.
    """
    if recipe.sampler.recycle is None:
        what = "missing, a next-frame model sees earlier frames in its extra channels"
        raise ValueError(f'sampler.recycle: {what}: "previous" or "first", with model.extra_channels')
    frames = stage.data.frames or recipe.video.frames
    if frames < 2:
        raise ValueError(f"{key}.data.frames: found {frames}, expected 2 or more: the first frame is given")


class Objective(BaseObjective):
    excludes = ("ema", "relative")
    widens: ClassVar[bool] = True
    sets: ClassVar[tuple[str, ...]] = (DISCRIMINATOR,)

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        check_next_frame(recipe, stage, key)

    def loss(self, role: str, batch: Batch) -> LossOutput:
        clean, run_context = batch.latents_BFCHW, self.run_context
        assert clean is not None
        assert batch.text_BMD is not None
        assert run_context.recycle is not None
        x0 = clean[:, 1:]
        sigma_BF = shift_sigma(batch.uniform(1, "sigma"), run_context.shift).to(x0.device).expand(-1, x0.shape[1])
        noise = batch.noise_like(x0, "noise")
        with run_context.roles.use(role) as network:
            v = forced_velocity(
                network,
                add_noise(x0, noise, sigma_BF),
                timestep_of(sigma_BF),
                network.encode_text(batch.text_BMD),
                conditions(clean, run_context.recycle, batch.moves_BF2),
                run_context.cache.window,
                run_context.cache.sink,
            )
        return LossOutput((v - velocity_target(x0, noise)).float().pow(2).mean())

    @torch.no_grad()
    def finish(self) -> None:
        """Let a discriminator begin with the adapted weights."""
        modules = self.run_context.roles.modules
        if DISCRIMINATOR not in modules:
            return
        student, discriminator = modules["student"], modules[DISCRIMINATOR]
        assert isinstance(student, CausalWan)
        assert isinstance(discriminator, Discriminator)
        discriminator.trunk.load_state_dict(student.state_dict())

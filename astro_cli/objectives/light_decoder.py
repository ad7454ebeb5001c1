"""A light decoder learns the pictures of the codec's decoder.

    L = mean || D'(z + s std(z) n) - D(z + s std(z) n) ||^2,   z = E(x),  n ~ N(0, I)

D stays as it is. A share `cut` of a batch's clips is decoded from the second latent on, as in the training of D
(`objectives.autoencoder`): videos that a model makes begin with a latent in motion.
Source: AAPT (arXiv 2506.09350), supplement E, which gives sizes and no loss.

**Deviations**: loss and noise are ours.
Dimensions: B clip, F latent frame, T frame, C channel, H, W.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from astro_cli.config.base import Config as BaseConfig
from astro_cli.models.light_decoder import ROLE, LightNetwork
from astro_cli.objectives.autoencoder import psnr
from astro_cli.objectives.base import Batch, LossOutput, RoleContext, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.shapes.video_codec import VideoCodec
from astro_cli.spec import Recipe, StageSpec

WIDTH = 24  # half of the codec's


class Config(BaseConfig):
    """`latent_noise`: s; `cut`: share of the clips decoded from their second latent on."""

    latent_noise: float = Field(default=0.2, ge=0)
    cut: float = Field(default=0.5, ge=0, lt=1)


def build_light_decoder(context: RoleContext) -> nn.Module:
    """A fresh light decoder for the run's codec."""
    codec = context.codec()
    assert isinstance(codec, VideoCodec)
    network = LightNetwork(WIDTH, codec)
    context.initialise(network.network)
    return network


class Objective(BaseObjective):
    trains = (ROLE,)
    builds: ClassVar = {ROLE: build_light_decoder}
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        light = run_context.roles.modules[ROLE]
        assert isinstance(light, LightNetwork)
        self.light = light

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        if recipe.backbone != "shapes":
            what = f"found {recipe.backbone!r}, expected 'shapes': tiny decoders of Wan's latents are published"
            raise ValueError(f"backbone: {what}")
        if config.cut and (stage.data.frames or recipe.video.frames) < 2:
            raise ValueError(f"{key}.data.frames: found 1, expected 2 or more with objective.cut")

    def loss(self, role: str, batch: Batch) -> LossOutput:
        z = batch.latents_BFCHW
        assert z is not None
        z = z + self.config.latent_noise * z.std() * batch.noise_like(z, "latent_noise")
        rows = round(self.config.cut * len(z))
        parts = [part for part in (z[rows:], z[:rows, 1:]) if len(part)]
        wanted = [self.run_context.decoder().push(part) for part in parts]
        errors = [(self.light(part) - target).square() for part, target in zip(parts, wanted, strict=True)]
        mse = torch.stack([error.sum() for error in errors]).sum() / sum(error.numel() for error in errors)
        return LossOutput(mse, {"psnr": psnr(mse.detach()).item()})

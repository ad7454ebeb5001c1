"""Reconstruction of clips through the latent codec, with a little noise on the latents.

    L = mean || D(E(x) + s std(z) n) - x ||^2,  n ~ N(0, I)

The encoder is linear and fitted before the first step; its decoder is trained.

The noise makes the decoder smooth where a diffusion model will miss by a little. With `cut`, that share of a batch's
clips is decoded from the second latent on, as if the video began there: what a diffusion model makes begins with a
latent that has motion in it, which no encoded video does. **Deviations**: ours; Wan's VAE is trained elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.shapes.video_codec import VideoCodec

FITTED = 1024  # clips the encoder is fitted on


class Config(BaseConfig):
    """`latent_noise`: s; `cut`: share of the clips decoded from their second latent on."""

    latent_noise: float = Field(default=0.02, ge=0)
    cut: float = Field(default=0.0, ge=0, lt=1)


def psnr(mse: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of a mean squared error on [0, 1]."""
    return -10.0 * mse.log10()


class Objective(BaseObjective):
    trains = ("codec",)
    source = "astro_cli.training.sources:FrameSource"
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        codec = run_context.roles.modules["codec"]
        assert isinstance(codec, VideoCodec)
        self.codec = codec

    def prepare(self, batches: Callable[[str, int], Batch]) -> None:
        frames = batches("fit", FITTED).frames_BTCHW
        assert frames is not None
        self.codec.fit(frames)

    def loss(self, role: str, batch: Batch) -> LossOutput:
        frames = batch.frames_BTCHW
        assert frames is not None
        latents = self.codec.encode(frames)
        noisy = latents + self.config.latent_noise * latents.detach().std() * batch.noise_like(latents, "latent_noise")
        rows = round(self.config.cut * len(frames))
        if rows == 0:
            mse = (self.codec.decode_raw(noisy) - frames).pow(2).mean()
        else:
            first = self.codec.num_frames(2) - 1  # the one frame shown of the second latent
            whole = (self.codec.decode_raw(noisy[rows:]) - frames[rows:]).pow(2)
            cut = (self.codec.decode_raw(noisy[:rows, 1:]) - frames[:rows, first:]).pow(2)
            mse = (whole.sum() + cut.sum()) / (whole.numel() + cut.numel())
        return LossOutput(mse, {"psnr": psnr(mse.detach()).item()})

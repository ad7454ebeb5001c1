"""The latent codec of the embedded world: a small learned convolutional autoencoder, frame by frame. It takes the place
of Wan's causal VAE.

32 x 32 pixels -> 8 x 8 x 4 latents of unit variance. Convolutions wrap around, as the world does, so a clip shifted by
4 pixels has exactly the shifted latents. Dimensions: B clip, F frame (one latent per frame), C channel, H, W pixels or
latent cells.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from astro_cli.shapes.render import FREE

LATENT_CHANNELS = 4
STRIDE = 4  # pixels per latent cell


def _conv(inner: int, outer: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, kernel, stride, padding=kernel // 2, padding_mode="circular")


class ShapesCodec(nn.Module):
    """Autoencoder of single frames; `mean` and `std` are the latents' statistics, set once after training."""

    channels = LATENT_CHANNELS
    cell = STRIDE
    reach = 0  # earlier latents that a frame depends on
    world = FREE
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        wide = width + width // 2
        self.encoder = nn.Sequential(
            _conv(3, width),
            nn.SiLU(),
            _conv(width, width, stride=2),
            nn.SiLU(),
            _conv(width, wide),
            nn.SiLU(),
            _conv(wide, wide, stride=2),
            nn.SiLU(),
            _conv(wide, wide),
            nn.SiLU(),
            _conv(wide, LATENT_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            _conv(LATENT_CHANNELS, wide),
            nn.SiLU(),
            _conv(wide, wide),
            nn.SiLU(),
            _conv(wide, 4 * width, 1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            _conv(width, width),
            nn.SiLU(),
            _conv(width, 4 * width // 2, 1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            _conv(width // 2, 3),
        )
        self.register_buffer("mean", torch.zeros(LATENT_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(LATENT_CHANNELS, 1, 1))

    def num_frames(self, num_latents: int) -> int:
        """Frames of a video of so many latents."""
        return num_latents

    def num_latents(self, num_frames: int) -> int:
        """Latents of a video of so many frames."""
        return num_frames

    def encode(self, frames_BFCHW: torch.Tensor) -> torch.Tensor:
        """Frames in [0, 1] -> normalised latents (B, F, 4, H / 4, W / 4)."""
        latents = self.encoder(frames_BFCHW.flatten(0, 1) * 2 - 1)
        return ((latents - self.mean) / self.std).unflatten(0, frames_BFCHW.shape[:2])

    def features(self, frames_BFCHW: torch.Tensor) -> torch.Tensor:
        """The encoder's last hidden layer (B, F, 60, H / 4, W / 4)."""
        return self.encoder[:-1](frames_BFCHW.flatten(0, 1) * 2 - 1).unflatten(0, frames_BFCHW.shape[:2])

    def decode(self, latents_BFCHW: torch.Tensor) -> torch.Tensor:
        """Normalised latents -> frames in [0, 1] (B, F, 3, 4 H, 4 W)."""
        return self.decode_raw(latents_BFCHW).clamp(0, 1)

    def decode_raw(self, latents_BFCHW: torch.Tensor) -> torch.Tensor:
        """Decode without clamping, for the training loss."""
        latents = latents_BFCHW.flatten(0, 1) * self.std + self.mean
        return (self.decoder(latents) * 0.5 + 0.5).unflatten(0, latents_BFCHW.shape[:2])

    def start(self) -> list[Any]:
        """The features of a decoder at the start of a video: none, frames are decoded one by one."""
        return []

    def step(self, latents_BFCHW: torch.Tensor, features: list[Any]) -> tuple[torch.Tensor, list[Any]]:
        """The next latents -> their frames, and the features after them (see `models.decoding`)."""
        return self.decode(latents_BFCHW), features

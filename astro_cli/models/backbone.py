"""A backbone: what stands around the transformer, prompts -> text states and latents <-> frames.

Owns the contract; `load_backbone` finds a backbone by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.shapes_backbone import ShapesBackbone, load_shapes_backbone
from astro_cli.shapes.render import World
from astro_cli.shapes.video_codec import VideoCodec


class Backbone(Protocol):
    """The text side and the codec around a video transformer. Frames are pixel frames, latents latent frames.

    Attributes:
        fps: of decoded videos.
        cell: pixels along each side of a latent cell.
        world: how clips of the embedded world are drawn for it.
    """

    name: str
    fps: float
    cell: int
    world: World

    @property
    def text_dim(self) -> int:
        """Width of the text states."""
        ...

    @property
    def channels(self) -> int:
        """Latent channels, C."""
        ...

    @property
    def autoencoder(self) -> nn.Module:
        """The network that encodes and decodes."""
        ...

    def to(self, device: torch.device) -> Backbone: ...

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """(B, M, text_dim) float32 states, zero past each prompt's end.

        Raises:
            PromptError: a prompt the text side cannot take.
        """
        ...

    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Frames in [0, 1] -> latents (B, F, C, H, W)."""
        ...

    def decode(self, latents_BFCHW: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
        """Latents of whole videos -> frames (B, T, 3, H, W) in [0, 1], float32.

        Args:
            gradient: frames carry gradients to the latents.
        """
        ...

    def decoder(self) -> StreamingDecoder:
        """A decoder at the start of a batch of videos; block after block it gives the frames of `decode`."""
        ...

    def num_frames(self, num_latents: int, history: int = 0) -> int:
        """Frames of a clip of so many latents that continues `history` latents; without any, it opens the video."""
        ...

    def num_latents(self, num_frames: int) -> int:
        """Fewest latents whose video has at least so many frames."""
        ...


def load_backbone(
    name: str, source: str | Path | None = None, *, empty: bool = False, dtype: torch.dtype | None = None
) -> Backbone:
    """Backbone by name.

    Args:
        name: "shapes" or "wan".
        source: shapes: codec weights other than the packaged ones; wan: a Wan 2.1 folder, default one below
            ASTRO_CHECKPOINTS.
        empty: a codec with random weights, to be trained; shapes only.
        dtype: of Wan's VAE and text encoder; default that of their files.

    Raises:
        CheckpointError: weights that are not here, damaged, or of another model.
    """
    if name == ShapesBackbone.name:
        return load_shapes_backbone(None if source is None else str(source), empty=empty)
    if empty:
        raise CheckpointError(
            name,
            "backbone",
            "Wan's VAE comes with its weights and is not trained here",
            hint="the codec of 'shapes' is",
        )
    # It imports transformers and diffusers; the embedded world saves these seconds.
    from astro_cli.models.wan_backbone import load_wan_backbone

    return load_wan_backbone(source, dtype)


def empty_autoencoder(name: str) -> nn.Module:
    """The network that encodes and decodes, with random weights, or none on the meta device."""
    if name == ShapesBackbone.name:
        return VideoCodec()
    from astro_cli.models.vae import new_vae  # with diffusers, as above

    return new_vae()

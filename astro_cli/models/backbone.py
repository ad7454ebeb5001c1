"""A backbone: what stands around the transformer, prompts -> text states and latents <-> frames. Owns no transformer."""

from __future__ import annotations

from typing import Protocol

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.models import weights
from astro_cli.shapes import render, text
from astro_cli.shapes.codec import ShapesCodec


class Backbone(Protocol):
    """fps is that of decoded videos."""

    name: str
    fps: float

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """(B, M, text_dim) states, zero past each prompt's end."""
        ...

    def decode(self, latents_BFCHW: torch.Tensor) -> torch.Tensor:
        """Latents -> frames (B, T, 3, H, W) in [0, 1]."""
        ...


class ShapesBackbone:
    """The embedded world: closed-vocabulary text without weights and a small convolutional codec."""

    name = "shapes"
    fps = float(render.FPS)

    def __init__(self, codec: ShapesCodec) -> None:
        self.codec = codec

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        return text.encode(prompts)

    @torch.no_grad()
    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        return self.codec.encode(frames_BTCHW)

    @torch.no_grad()
    def decode(self, latents_BFCHW: torch.Tensor) -> torch.Tensor:
        return self.codec.decode(latents_BFCHW)


def load_backbone(name: str, codec: str | None = None, *, empty: bool = False) -> ShapesBackbone:
    """Backbone by name; `codec` names other codec weights than the packaged ones; `empty` leaves them random (to be trained).

    Raises:
        CheckpointError: weights that are not here, or of another model.
    """
    if name != "shapes":
        what = "the text encoder and VAE of Wan 2.1 cannot be loaded by this version"
        raise CheckpointError(name, "backbone", what, hint="`--dry-run` checks a Wan recipe; run its `_shapes` counterpart here")
    module = ShapesCodec()
    if not empty:
        weights.load_into(module, weights.find(codec or "shapes/codec", "codec"))
    return ShapesBackbone(module.requires_grad_(False))

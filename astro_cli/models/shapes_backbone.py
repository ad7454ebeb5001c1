"""The embedded world as a backbone: closed-vocabulary text without weights and a small convolutional codec."""

from __future__ import annotations

import torch

from astro_cli.models import weights
from astro_cli.models.decoding import Features, StreamingDecoder
from astro_cli.shapes import render, text
from astro_cli.shapes.codec import LATENT_CHANNELS, STRIDE, ShapesCodec


class ShapesBackbone:
    """A latent frame is a frame, so its decoder keeps no state."""

    name = "shapes"
    fps = float(render.FPS)
    cell = STRIDE
    text_dim = text.TEXT_DIM
    channels = LATENT_CHANNELS

    def __init__(self, codec: ShapesCodec) -> None:
        self.codec = codec

    def to(self, device: torch.device) -> ShapesBackbone:
        self.codec.to(device)
        return self

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        return text.encode(prompts)

    @torch.no_grad()
    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        return self.codec.encode(frames_BTCHW)

    def decode(self, latents_BFCHW: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
        return self.decoder().push(latents_BFCHW, gradient=gradient)

    def decoder(self) -> StreamingDecoder:
        return StreamingDecoder(self._decode, features=[])

    def _decode(self, latents_BFCHW: torch.Tensor, features: Features) -> tuple[torch.Tensor, Features]:
        return self.codec.decode(latents_BFCHW), features

    def num_frames(self, num_latents: int, history: int = 0) -> int:
        return num_latents

    def num_latents(self, num_frames: int) -> int:
        return num_frames


def load_shapes_backbone(codec: str | None = None, *, empty: bool = False) -> ShapesBackbone:
    """The backbone with the packaged codec, the one named, or with `empty` a random one to be trained.

    Raises:
        CheckpointError: weights that are not here, or of another model.
    """
    module = ShapesCodec()
    if not empty:
        weights.load_into(module, weights.find(codec or "shapes/codec", "codec"))
    return ShapesBackbone(module.requires_grad_(False))

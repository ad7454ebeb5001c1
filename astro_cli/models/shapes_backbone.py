"""The embedded world as a backbone: closed-vocabulary text without weights and a small convolutional codec."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models import retired, weights
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.shapes import render, text
from astro_cli.shapes.video_codec import VideoCodec


class ShapesBackbone:
    """Text, codec and renderer of the embedded world."""

    name = "shapes"
    fps = float(render.FPS)
    text_dim = text.TEXT_DIM
    channels, cell, world = VideoCodec.channels, VideoCodec.cell, VideoCodec.world

    def __init__(self, codec: VideoCodec) -> None:
        self.codec = codec

    @property
    def autoencoder(self) -> nn.Module:
        return self.codec

    def to(self, device: torch.device) -> ShapesBackbone:
        self.codec.to(device)
        return self

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        return text.encode(prompts)

    @torch.no_grad()
    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        return self.codec.encode(frames_BTCHW)

    def features(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Frozen features (B, T, D, h, w) of every frame alone, at the latents' places: what its codec sees; with
        gradients where they are enabled.
        """
        return self.codec.features(frames_BTCHW)

    def decode(self, latents_BFCHW: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
        return self.decoder().push(latents_BFCHW, gradient=gradient)

    def decoder(self) -> StreamingDecoder:
        return StreamingDecoder(self.codec.step, self.codec.start(), self.codec.reach)

    def num_frames(self, num_latents: int, history: int = 0) -> int:
        if not history:
            return self.codec.num_frames(num_latents)
        return self.codec.num_frames(history + num_latents) - self.codec.num_frames(history)

    def num_latents(self, num_frames: int) -> int:
        return self.codec.num_latents(num_frames)


def load_shapes_backbone(codec: str | None = None, *, empty: bool = False) -> ShapesBackbone:
    """The backbone with the packaged codec, the one named, or a random one to be trained (`empty`).

    Raises:
        CheckpointError: weights that are not here, or of another model.
    """
    module = VideoCodec()
    if not empty:
        path = codec_file(codec)
        retired.refuse(path)
        mean = weights.read(path).get("mean")
        if mean is None or mean.shape[:1] != (module.channels,):
            statistics = "no latent statistics" if mean is None else f"{tuple(mean.shape)}"
            expected = f"those of {module.channels} latent channels: not a codec of this world"
            raise CheckpointError(path, "mean", f"found {statistics}, expected {expected}")
        weights.load_into(module, path)
    return ShapesBackbone(module.requires_grad_(False))


def codec_file(codec: str | None) -> Path:
    """The codec's weights: the packaged ones, or those named. Raises: CheckpointError: there are none."""
    return weights.find(codec or "shapes/codec", "codec")

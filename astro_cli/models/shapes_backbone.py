"""The embedded world as a backbone: closed-vocabulary text without weights and a small convolutional codec."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models import weights
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.shapes import render, text
from astro_cli.shapes.codec import ShapesCodec
from astro_cli.shapes.video_codec import VideoCodec

Codec = ShapesCodec | VideoCodec
# Latent channels tell the codecs apart.
CODECS: dict[int, type[Codec]] = {codec.channels: codec for codec in (ShapesCodec, VideoCodec)}


class ShapesBackbone:
    """How many frames a latent frame holds, and how many channels, is the codec's: one and 4 (`ShapesCodec`), or four
    and 16 (`VideoCodec`). So is the `world` whose clips it was made for.
    """

    name = "shapes"
    fps = float(render.FPS)
    text_dim = text.TEXT_DIM

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.cell, self.channels, self.world = codec.cell, codec.channels, codec.world

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


def load_shapes_backbone(codec: str | None = None, *, empty: int | None = None) -> ShapesBackbone:
    """The backbone with the packaged codec, the one named, or a random one of `empty` latent channels to be trained.

    Raises:
        CheckpointError: weights that are not here, or of another model.
    """
    if empty is not None:
        return ShapesBackbone(new_codec(empty).requires_grad_(False))
    path = codec_file(codec)
    mean = weights.read(path).get("mean")
    if mean is None or mean.shape[:1] not in [(channels,) for channels in CODECS]:
        statistics = "no latent statistics" if mean is None else f"{tuple(mean.shape)}"
        raise CheckpointError(
            path,
            "mean",
            f"found {statistics}, expected those of {allowed_channels()} latent channels: not a codec of this world",
        )
    module = new_codec(mean.shape[0])
    weights.load_into(module, path)
    return ShapesBackbone(module.requires_grad_(False))


def codec_file(codec: str | None) -> Path:
    """The codec's weights: the packaged ones, or those named. Raises: CheckpointError: there are none."""
    return weights.find(codec or "shapes/codec", "codec")


def new_codec(channels: int) -> Codec:
    """A codec with random weights.

    Raises:
        CheckpointError: no codec of this world has so many latent channels.
    """
    if channels not in CODECS:
        raise CheckpointError(
            "model", "in_channels", f"found {channels}, the codecs of this world have {allowed_channels()}"
        )
    return CODECS[channels]()


def allowed_channels() -> str:
    return " or ".join(map(str, sorted(CODECS)))

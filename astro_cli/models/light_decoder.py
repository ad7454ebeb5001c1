"""Light decoders of the embedded world's latents: fewer and narrower layers than the codec's decoder, trained to give
its pictures. Owns the network and its file.

Source: AAPT (arXiv 2506.09350), supplement E: blocks per resolution from 3 to 2, and half of the channels, for nearly
three times the speed.

**Deviations**: the codec's decoder has two blocks, this one has one; its width is a recipe's.
Dimensions: B clip, F latent frame, T frame, C channel, H, W.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models import weights
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.shapes.video_codec import VideoCodec, decoded, decoder_network

ROLE = "light_decoder"
BLOCKS = 1
FIRST = "network.0.weight"  # its output channels are twice the width
HINT = "train one: astro pretrain --recipe light_decoder_shapes"


class LightNetwork(nn.Module):
    """Args: codec: whose pictures it learns; its statistics are kept to know it again."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, width: int, codec: VideoCodec) -> None:
        super().__init__()
        self.network = decoder_network(width, BLOCKS)
        self.register_buffer("mean", codec.mean.clone())
        self.register_buffer("std", codec.std.clone())

    def forward(self, latents_BFCHW: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
        """As `VideoCodec.decode_raw`."""
        return decoded(self.network, latents_BFCHW, last)


class LightDecoder:
    """A light decoder with its weights."""

    channels = VideoCodec.channels

    def __init__(self, network: LightNetwork, source: Path) -> None:
        self.network, self.source = network.eval().requires_grad_(False), source

    def to(self, device: torch.device) -> LightDecoder:
        self.network.to(device)
        return self

    def decoder(self) -> StreamingDecoder:
        """At the start of a batch of videos."""
        return StreamingDecoder(self._step, [None], VideoCodec.reach)

    def _step(
        self, latents_BFCHW: torch.Tensor, features: list[torch.Tensor | None]
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        return self.network(latents_BFCHW, features[0]).clamp(0, 1), [latents_BFCHW[:, -1:]]


def load_light_decoder(path: str | Path, codec: VideoCodec) -> LightDecoder:
    """A light decoder from its file, or from the folder of the run that trained it.

    Raises:
        CheckpointError: missing, damaged, no light decoder, or one of another codec.
    """
    where = Path(path)
    if where.is_dir():
        where = where / "final" / f"{ROLE}.safetensors"
    if not where.is_file():
        raise CheckpointError(where, "--decoder", "no such file", hint=HINT)
    first = weights.read(where).get(FIRST)
    if first is None or first.ndim != 4 or first.shape[0] % 2:
        what = f"missing {FIRST}" if first is None else f"{FIRST} is {tuple(first.shape)}"
        raise CheckpointError(where, "--decoder", f"{what}: no light decoder of this world", hint=HINT)
    network = LightNetwork(first.shape[0] // 2, codec)
    weights.load_into(network, where)
    if not torch.equal(network.mean, codec.mean) or not torch.equal(network.std, codec.std):
        raise CheckpointError(where, "--decoder", "was trained for another codec", hint=HINT)
    return LightDecoder(network, where)

"""Tiny decoders of Wan's latents: a quick stand-in for the VAE's decoder, at some loss of quality. Owns the network,
its file layout and its temporal memory.

Every block of the decoder sees its own input at the latent or frame before (`_Memory`), so decoding is a stream like
the VAE's. It takes normalised latents as the transformer makes them, and gives frames in [0, 1].
Source: TAEHV, whose weights for Wan 2.1 are named `taew2_1` (.pth or .safetensors): `decoder.<place>.*`, places as in
`_layers`; the encoder's tensors beside them are not read.
Dimensions: B video, F latent frame, T frame, C channel, H, W rows and columns.

**Deviations**: none.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models import parts
from astro_cli.models.decoding import Features, StreamingDecoder
from astro_cli.models.vae import PICTURES

PREFIX, ENCODER = "decoder.", "encoder."
STAGES = 3  # each doubles rows and columns; the last two also frames
COLOURS = 3
HINT = "the decoders for Wan 2.1 are named taew2_1"


class _Clamp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / 3) * 3


class _Memory(nn.Module):
    """A residual block that also sees its input one frame earlier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x_BTCHW: torch.Tensor, last_BCHW: torch.Tensor) -> torch.Tensor:
        past = torch.cat((last_BCHW[:, None], x_BTCHW[:, :-1]), 1)
        y = self.conv(torch.cat((x_BTCHW, past), 2).flatten(0, 1)).unflatten(0, x_BTCHW.shape[:2])
        return torch.relu(y + x_BTCHW)


class _Grow(nn.Module):
    """One frame becomes `times` frames, by a linear map of the channels."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)


class _Decoder(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layers(channels, widths))

    def forward(self, latents_BFCHW: torch.Tensor, last: Features) -> tuple[torch.Tensor, Features]:
        """Frames (B, 4F, 3, H, W), and what the memory blocks saw last."""
        x, memory, kept = latents_BFCHW, iter(last), []
        for layer in self.layers:
            if isinstance(layer, _Memory):
                earlier = next(memory)
                kept.append(x[:, -1])
                x = layer(x, torch.zeros_like(x[:, 0]) if earlier is None else earlier)
                continue
            batch, frames = x.shape[:2]
            x = (layer.conv if isinstance(layer, _Grow) else layer)(x.flatten(0, 1))
            if isinstance(layer, _Grow):
                x, frames = x.unflatten(1, (layer.times, -1)).flatten(0, 1), frames * layer.times
            x = x.unflatten(0, (batch, frames))
        return x, kept


def _layers(channels: int, widths: tuple[int, ...]) -> list[nn.Module]:
    """In the places that the files number."""
    layers: list[nn.Module] = [_Clamp(), nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU()]
    for stage in range(STAGES):
        width, after = widths[stage], widths[stage + 1]
        layers += [_Memory(width) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _Grow(width, 1 if stage == 0 else 2)]
        layers.append(nn.Conv2d(width, after, 3, padding=1, bias=False))
    return [*layers, nn.ReLU(), nn.Conv2d(widths[-1], COLOURS, 3, padding=1)]


class TinyDecoder:
    """A tiny decoder with its weights."""

    def __init__(self, network: _Decoder, source: Path) -> None:
        self.network, self.source = network.eval().requires_grad_(False), source
        self.first = cast(nn.Conv2d, network.layers[1])
        self.channels = self.first.in_channels

    def to(self, device: torch.device) -> TinyDecoder:
        self.network.to(device)
        return self

    def decoder(self) -> StreamingDecoder:
        """At the start of a batch of videos: N latents are 4N - 3 frames."""
        memories = sum(isinstance(layer, _Memory) for layer in self.network.layers)
        return StreamingDecoder(self._step, [None] * memories)

    def _step(self, latents_BFCHW: torch.Tensor, features: Features) -> tuple[torch.Tensor, Features]:
        first, weight = features[0] is None, self.first.weight
        frames, kept = self.network(latents_BFCHW.to(weight.device, weight.dtype), features)
        # A video's first latent is one frame: the three before it have no past to show.
        return frames[:, PICTURES - 1 if first else 0 :].float().clamp(0, 1), kept


def load_tiny_decoder(path: str | Path, dtype: torch.dtype | None = None) -> TinyDecoder:
    """A tiny decoder from its file.

    Args:
        dtype: to run in; default that of the file.

    Raises:
        CheckpointError: a file that is missing, damaged, or no decoder of Wan 2.1's latents.
    """
    where = Path(path)
    if not where.is_file():
        raise CheckpointError(where, "--decoder", "no such file", hint=HINT)
    state = {
        f"layers.{key.removeprefix(PREFIX)}": value
        for key, value in parts.state(where).items()
        if not key.startswith(ENCODER)
    }
    widths = [_width(state, place, where) for place in (1, 8, 14, 20)]
    channels = state["layers.1.weight"].shape[1]
    # Files may hold a first temporal map for two frames, of which the later is used.
    grow = "layers.7.conv.weight"
    if grow in state and len(state[grow]) == 2 * widths[0]:
        state[grow] = state[grow][widths[0] :]
    network = parts.assemble(lambda: _Decoder(channels, tuple(widths)), state, where, dtype)
    return TinyDecoder(network, where)


def _width(state: dict[str, torch.Tensor], place: int, where: Path) -> int:
    """Output channels of a convolution."""
    weight = state.get(f"layers.{place}.weight")
    if weight is None or weight.ndim != 4:
        raise CheckpointError(where, f"{PREFIX}{place}.weight", "missing: not a tiny decoder", hint=HINT)
    return weight.shape[0]


def new_tiny_decoder(channels: int, widths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Random weights by their names in a file.

    Args:
        widths: channels of the three stages and behind them; 256, 128, 64, 64 as released.
    """
    state = _Decoder(channels, widths).state_dict()
    return {f"{PREFIX}{key.removeprefix('layers.')}": value for key, value in state.items()}

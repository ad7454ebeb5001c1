"""The temporal latent codec of the embedded world, with the geometry of Wan's VAE: causal, four frames to a latent.

32 x 32 pixels and 4 frames -> 8 x 8 x 16 latents of unit variance; the first latent is one frame, so N latents are
1 + 4 (N - 1) frames. The encoder is linear: the first 16 principal components of the world's patches of 4 frames x 4 x
4 pixels, so latents are as smooth as the pictures are. The decoder is a convolutional network that sees a latent and
the one before it, so it runs as a stream whose state is one latent. The first frame is encoded as a group that rests;
of the first latent only the last frame is shown. Convolutions wrap around, as the world does.
Source: the geometry is that of Wan 2.1 (arXiv 2503.20314), section 4.1; the network is ours.
Dimensions: B clip, T frame, F latent frame, C channel, H, W pixels or latent cells.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from astro_cli.shapes.render import GRID

GROUP = 4  # frames of every latent but the first
CELL = 4  # pixels along each side of a latent cell
RGB = 3
# Latent channels have variance proportional to that of their component to the power 1 - 2 x EVENED: whitened (0.5) the
# network would spend itself on details, as they are (0) most of the loss would be the background's brightness.
EVENED = 0.25


def _conv(inner: int, outer: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, kernel, stride, padding=kernel // 2, padding_mode="circular")


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.SiLU(), _conv(width, width), nn.SiLU(), _conv(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def decoder_network(width: int, blocks: int) -> nn.Sequential:
    """Pairs of latents (N, 2 x 16, H / 4, W / 4) -> groups of frames (N, 12, H, W) in about [-1, 1].

    Args:
        width: channels at half of the frames' resolution, twice as many at a quarter.
        blocks: residual ones, at a quarter.
    """
    deep = 2 * width
    return nn.Sequential(
        _conv(2 * VideoCodec.channels, deep),
        *(_Residual(deep) for _ in range(blocks)),
        nn.SiLU(),
        _conv(deep, 4 * width, 1),
        nn.PixelShuffle(2),
        nn.SiLU(),
        _conv(width, width),
        nn.SiLU(),
        _conv(width, 4 * RGB * GROUP),
        nn.PixelShuffle(2),
    )


def decoded(network: nn.Module, latents_BFCHW: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
    """Frames by such a network, not clamped.

    Args:
        last: the latent (B, 1, 16, H / 4, W / 4) before these; None where the video begins.
    """
    unseen = GROUP - 1 if last is None else 0
    before = torch.zeros_like(latents_BFCHW[:, :1]) if last is None else last
    pairs = torch.cat((latents_BFCHW, torch.cat((before, latents_BFCHW[:, :-1]), 1)), 2)
    pictures = network(pairs.flatten(0, 1)) * 0.5 + 0.5
    return pictures.unflatten(1, (GROUP, RGB)).unflatten(0, latents_BFCHW.shape[:2]).flatten(1, 2)[:, unseen:]


class VideoCodec(nn.Module):
    """Causal autoencoder of clips; `filters`, `mean` and `std` are set once, by `fit`; the decoder is trained."""

    channels = 16
    cell = CELL
    reach = 1  # earlier latents that a frame depends on
    world = GRID
    filters: torch.Tensor  # (16, 4 frames x RGB, 4, 4)
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        channels = self.channels
        self.decoder = decoder_network(width, 2)
        self.register_buffer("filters", torch.zeros(channels, RGB * GROUP, CELL, CELL))
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    @torch.no_grad()
    def fit(self, frames_BTCHW: torch.Tensor) -> None:
        """Set the encoder from clips in [0, 1], T = 4F - 3: the principal components of their whole groups."""
        groups_NCHW = self.groups(frames_BTCHW[:, 1:])
        patches_NK = functional.unfold(groups_NCHW, CELL, stride=CELL).mT.flatten(0, 1).double()
        center_K = patches_NK.mean(0)
        patches_NK -= center_K
        values, vectors = torch.linalg.eigh(patches_NK.T @ patches_NK / len(patches_NK))
        best = values.argsort(descending=True)[: self.channels]
        filters_CK, values_C = vectors[:, best].T, values[best]
        std_C = values_C.pow(EVENED)
        std_C *= (values_C / std_C.square()).mean().sqrt()  # latents of variance 1 on average
        self.filters.copy_(filters_CK.view_as(self.filters))
        self.mean.copy_((filters_CK @ center_K)[:, None, None])
        self.std.copy_(std_C[:, None, None])

    @staticmethod
    def groups(frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Whole groups of frames in [0, 1] as pictures of 12 channels in [-1, 1]: (B x T / 4, 12, H, W)."""
        return frames_BTCHW.unflatten(1, (-1, GROUP)).flatten(2, 3).flatten(0, 1) * 2 - 1

    def num_frames(self, num_latents: int) -> int:
        """Frames of a video of so many latents."""
        return 1 + GROUP * (num_latents - 1) if num_latents else 0

    def num_latents(self, num_frames: int) -> int:
        """Fewest latents whose video has at least so many frames."""
        return 1 + -(-(num_frames - 1) // GROUP) if num_frames else 0

    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Frames in [0, 1] -> normalised latents (B, F, 16, H / 4, W / 4).

        Raises:
            ValueError: T is not 4F - 3.
        """
        return VideoEncoder(self).encode(frames_BTCHW)

    def features(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, 16, H / 4, W / 4) of every frame as a group that rests."""
        resting = frames_BTCHW.flatten(0, 1)[:, None].expand(-1, GROUP, -1, -1, -1)
        latents = functional.conv2d(self.groups(resting), self.filters, stride=CELL)
        return ((latents - self.mean) / self.std).unflatten(0, frames_BTCHW.shape[:2])

    def decode(self, latents_BFCHW: torch.Tensor) -> torch.Tensor:
        """Normalised latents of a whole video -> frames in [0, 1] (B, 4F - 3, 3, 4 H, 4 W)."""
        return self.decode_raw(latents_BFCHW).clamp(0, 1)

    def decode_raw(self, latents_BFCHW: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
        """Decode without clamping, for the training loss; as `decoded`."""
        return decoded(self.decoder, latents_BFCHW, last)

    def start(self) -> list[torch.Tensor | None]:
        """The features of a decoder at the start of a video: the last latent, of which there is none."""
        return [None]

    def step(
        self, latents_BFCHW: torch.Tensor, features: list[torch.Tensor | None]
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """The next latents -> their frames in [0, 1], 4 a latent, and the last latent (see `models.decoding`)."""
        return self.decode_raw(latents_BFCHW, features[0]).clamp(0, 1), [latents_BFCHW[:, -1:]]


class VideoEncoder:
    """Encodes one batch of videos as frames come: the first alone, then four to a latent. Several may run beside each
    other.
    """

    def __init__(self, codec: VideoCodec) -> None:
        self.codec = codec
        self._started = False

    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """The next frames in [0, 1] -> their normalised latents (B, F, C, H, W); T is 4F, or 4F - 3 where the video
        begins.

        Raises:
            ValueError: another number of frames.
        """
        alone = 0 if self._started else 1
        if (frames_BTCHW.shape[1] - alone) % GROUP or not frames_BTCHW.shape[1]:
            wanted = "4F - 3 frames at the start" if alone else "4F frames at a time"
            raise ValueError(f"the codec encodes {wanted}, found {frames_BTCHW.shape[1]}")
        self._started = True
        rest = frames_BTCHW[:, :1].expand(-1, (GROUP - 1) * alone, -1, -1, -1)
        groups_NCHW = self.codec.groups(torch.cat((rest, frames_BTCHW), 1))
        latents = functional.conv2d(groups_NCHW, self.codec.filters, stride=CELL)
        return ((latents - self.codec.mean) / self.codec.std).unflatten(0, (len(frames_BTCHW), -1))

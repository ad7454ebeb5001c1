"""A motion branch on the features of a codec's decoder: it predicts flow, and its features are fused back into the
features that become the picture, through a convolution that begins at zero.

    m = branch(h),   flow = head(m),   h' = h + Z m,   Z = 0 at the start

So a decoder that has just got a branch gives the same frames, bit for bit. The branch stands before one layer of the
decoder; a frame's features know the frames before it, so the flow that they give is that from the frame before.
Source: TeleBoost (arXiv 2602.07595), section 2.4; zero-initialised fusion: ControlNet (arXiv 2302.05543).
Dimensions: B clip, N picture of features, C feature, P pairs of frames that end in one picture's frames, T frame,
2 x and y displacement in pixels, h, w rows and columns of the features.

**Deviations**: the paper names no layer and no sizes. Here: before the layer at half of the frames' resolution, two
convolutions of 3 x 3 and one of 1 x 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models import weights
from astro_cli.shapes.video_codec import GROUP, VideoCodec

MOTION_WIDTH = 48
Padding = Literal["zeros", "circular"]


class MotionBranch(nn.Module):
    """Motion features of pictures of features, the flow they give, and their fusion."""

    def __init__(self, width: int, pairs: int, padding_mode: Padding) -> None:
        super().__init__()
        inner = MOTION_WIDTH
        self.features = nn.Sequential(
            nn.Conv2d(width, inner, 3, padding=1, padding_mode=padding_mode),
            nn.SiLU(),
            nn.Conv2d(inner, inner, 3, padding=1, padding_mode=padding_mode),
            nn.SiLU(),
        )
        self.head = nn.Conv2d(inner, 2 * pairs, 3, padding=1, padding_mode=padding_mode)
        self.fuse = nn.Conv2d(inner, width, 1)

    def forward(self, features_NChw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fused features (N, C, h, w), and flow (N, 2 P, h, w)."""
        motion = self.features(features_NChw)
        return features_NChw + self.fuse(motion), self.head(motion)


class FlowDecoder(nn.Module):
    """A codec's own decoder, which now has a motion branch before one of its layers.

    Args:
        decoder: it goes on to be the codec's, with the codec's calls; its parameters are this module's too.
        place: the layer.
        width: features that the layer takes, (N, C, h, w) or (B, C, T, h, w).
        pairs: frames that one picture of features becomes.
    """

    def __init__(self, decoder: nn.Module, place: nn.Module, width: int, pairs: int, padding_mode: Padding) -> None:
        super().__init__()
        self.decoder, self.pairs = decoder, pairs
        self.branch = MotionBranch(width, pairs, padding_mode)
        self._flows: list[torch.Tensor] | None = None
        place.register_forward_pre_hook(self._fuse)

    def start(self, initialise: Callable[[nn.Module], None]) -> None:
        """Fresh weights of the branch, and none of its fusion."""
        initialise(self.branch)
        for parameter in self.branch.fuse.parameters():
            nn.init.zeros_(parameter)

    def _fuse(self, place: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        features, *rest = given
        pictures = features.transpose(1, 2).flatten(0, 1) if features.ndim == 5 else features
        fused, flow = self.branch(pictures.to(self.branch.fuse.weight.dtype))
        if self._flows is not None:
            self._flows.append(flow)
        if features.ndim == 5:
            fused = fused.unflatten(0, (features.shape[0], -1)).transpose(1, 2)
        return fused.to(features.dtype), *rest

    @contextmanager
    def watching(self) -> Iterator[list[torch.Tensor]]:
        """The flow of every call of the decoder inside of the block, (N, 2 P, h, w) each."""
        self._flows = []
        try:
            yield self._flows
        finally:
            self._flows = None

    def flow(self, flows: list[torch.Tensor], batch: int) -> torch.Tensor:
        """(B, T - 1, 2, h, w) flow of clips that the decoder has decoded from their beginning, in the decoder's units.

        Args:
            flows: as `watching` gives them; a picture of the first latent has no frame before it and is left out.
        """
        each = [flow.unflatten(0, (batch, -1)).unflatten(2, (self.pairs, 2)).flatten(1, 2) for flow in flows]
        return torch.cat(each, 1)[:, self.pairs :]


def flow_decoder(codec: nn.Module) -> FlowDecoder:
    """Give a codec's decoder a motion branch: the temporal codec of the embedded world, or Wan's VAE."""
    if isinstance(codec, VideoCodec):
        place = codec.decoder[-2]
        assert isinstance(place, nn.Conv2d)
        return FlowDecoder(codec.decoder, place, place.in_channels, GROUP, "circular")
    place = codec.get_submodule("decoder.up_blocks")[-2]  # type: ignore[index]  # at half of the frames' resolution, all frames there
    return FlowDecoder(codec.decoder, place, place.resnets[0].conv1.in_channels, 1, "zeros")  # type: ignore[arg-type]


def load_flow_decoder(codec: nn.Module, path: Path) -> FlowDecoder:
    """Let a codec decode through the trained decoder with its branch; returns both.

    Raises:
        CheckpointError: missing, damaged, or of another codec.
    """
    module = flow_decoder(codec).requires_grad_(False).to(next(codec.parameters()).device)
    load_weights(module, path)
    return module


def load_weights(module: FlowDecoder, path: Path) -> None:
    """Load a trained decoder with its branch.

    Raises:
        CheckpointError: missing, damaged, or of another codec.
    """
    if not path.is_file():
        hint = "copy it with the transformer's weights, which were tuned with it"
        raise CheckpointError(path, "", "missing: the decoder with its motion branch", hint=hint)
    weights.load_into(module, path)

"""What a stream is: the student's steps and kernel, block, cache and given frames. Refuses what cannot stream.

Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns; S step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from astro_cli.cache.spec import CacheSpec
from astro_cli.config.errors import StreamError
from astro_cli.rollout.switch_schedule import block_starts
from astro_cli.sampling.kernel import RENOISE, Kernel


@dataclass(frozen=True)
class StreamSpec:
    """How a student streams.

    Args:
        steps: (S,) warped timesteps, descending.
        block: latent frames per block, 1 or more.
        latent_shape: (C, H, W).
        cache: window, sink, positions, sink policy.
        first_frame_alone: block 0 is one frame (image to video).
        given: (B, F, C, H, W) clean latents of the first frames, whole blocks: an image, or a video to continue.
        kernel: how the sampler takes its steps.
        starts: seeds of the videos' x_T, one per sample; None: the samples' own, of which the other draws are.
        sink_gradient: in a rollout with gradients, let them through the EMA of the sink (`cache.sinks.live`).
        noise: who draws it: the CPU, the same numbers on every machine, or the network's device, other numbers.
        recycle: what a next-frame model sees of earlier frames in its extra channels (`next_frame`); None: another
            model.
        moves: (B, F, 2) of the camera before each frame, from frame 0 on, in world units; the last one goes on. None: a
            model without a camera.
        float8_cache: keep keys and values in FP8 (`cache.exchange.Stored`), in half the memory of bfloat16.
    """

    steps: torch.Tensor
    block: int
    latent_shape: tuple[int, int, int]
    cache: CacheSpec
    first_frame_alone: bool = False
    given: torch.Tensor | None = None
    kernel: Kernel = RENOISE
    starts: tuple[int, ...] | None = None
    sink_gradient: bool = False
    noise: Literal["cpu", "device"] = "cpu"
    float8_cache: bool = False
    recycle: Literal["previous", "first"] | None = None
    moves: torch.Tensor | None = None

    def seeds_of(self, seeds: list[int], use: str) -> list[int]:
        """Whose streams a draw comes from: "x_T" may be shared."""
        return list(self.starts) if use == "x_T" and self.starts is not None else seeds

    def block_at(self, start: int) -> int:
        """Frames of the block that starts at frame `start`."""
        return 1 if self.first_frame_alone and start == 0 else self.block

    def check(self, batch: int, max_frames: int | None) -> None:
        """Refuse what cannot stream.

        Raises:
            RecipeError: the cache's window or sink.
            StreamError: a length or given latents that are no whole blocks, an endless stream without a window.
        """
        self.cache.check(self.block, first_frame_alone=self.first_frame_alone)
        if max_frames is None and self.cache.window is None:
            raise StreamError(
                "stream",
                "max_frames",
                "missing: without a window the cache holds the whole video",
                hint="give a window or a length",
            )
        if max_frames is not None:
            self._check_whole("frames", max_frames)
        if self.given is None:
            return
        expected = (batch, self.given.shape[1], *self.latent_shape)
        if self.given.shape != expected:
            raise StreamError(
                "stream", "given", f"found latents of shape {tuple(self.given.shape)}, expected {expected}"
            )
        self._check_whole("given", self.given.shape[1])
        if max_frames is not None and self.given.shape[1] >= max_frames:
            raise StreamError(
                "stream", "given", f"found {self.given.shape[1]} frames, expected fewer than the video's {max_frames}"
            )

    def _check_whole(self, key: str, frames: int) -> None:
        starts = block_starts(frames, self.block, first_frame_alone=self.first_frame_alone)
        if not starts or starts[-1] + self.block_at(starts[-1]) != frames:
            blocks = (
                f"1 + a multiple of the block ({self.block})"
                if self.first_frame_alone
                else f"a multiple of the block ({self.block})"
            )
            raise StreamError("stream", key, f"found {frames} latent frames, expected {blocks}")

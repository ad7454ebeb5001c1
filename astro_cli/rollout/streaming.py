"""Whole streams as functions: `stream` yields the blocks of a `Streamer`, `generate` the finished videos. One loop for
training and inference.

Source, dimensions and deviations: `engine`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from astro_cli.cache.kv import KVCache
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.rollout.engine import Streamer, StreamSpec, frame_noise, new_cache, write_context
from astro_cli.rollout.switch_schedule import SwitchSchedule
from astro_cli.rollout.switching import SwitchRule
from astro_cli.sampling.trajectory import Recorder, Trajectory

__all__ = ["StreamSpec", "frame_noise", "generate", "new_cache", "sample", "stream", "write_context"]


def stream(
    network: CausalWan,
    text: TextStates,
    seeds: list[int],
    spec: StreamSpec,
    frames: int,
    *,
    exit_step: int | None = None,
    gradient: bool = False,
    cache: KVCache | None = None,
    join: bool = True,
    schedule: SwitchSchedule[TextStates] | None = None,
    rule: SwitchRule | None = None,
    recorder: Recorder | None = None,
) -> Iterator[torch.Tensor]:
    """Generate block after block.

    Args:
        frames: latent frames of the video, whole blocks; given ones included.
        exit_step, gradient: of every block, as `Streamer.next_block`.
        schedule, rule: prompt switches, and what they do to the cached past.
        others: as `Streamer`.

    Yields:
        x0 of each block (B, block, C, H, W), given latents first and in one piece: joined, they are the video.

    Raises:
        RecipeError, StreamError: a spec, length or switch that cannot stream.
    """
    streamer = Streamer(network, text, seeds, spec, frames, cache=cache, join=join, recorder=recorder)
    if spec.given is not None:
        yield spec.given
    while streamer.frame < frames:
        new_text = schedule.due(streamer.frame) if schedule is not None else None
        if new_text is not None:
            streamer.switch(new_text, rule)
        yield streamer.next_block(exit_step, gradient=gradient)


@torch.no_grad()
def generate(
    network: CausalWan,
    text_BMD: torch.Tensor,
    seeds: list[int],
    spec: StreamSpec,
    frames: int,
    recorder: Recorder | None = None,
) -> torch.Tensor:
    """A whole batch of videos at once, (B, F, C, H, W), without gradients; `recorder` keeps their trajectory."""
    text = network.encode_text(text_BMD.to(network.device))
    return torch.cat(list(stream(network, text, seeds, spec, frames, recorder=recorder)), dim=1)


@torch.no_grad()
def sample(network: CausalWan, text_BMD: torch.Tensor, seeds: list[int], spec: StreamSpec, frames: int) -> Trajectory:
    """The trajectory of a whole batch of videos, without given frames; its latents are those of `generate`."""
    recorder = Recorder()
    generate(network, text_BMD, seeds, spec, frames, recorder)
    return recorder.take()

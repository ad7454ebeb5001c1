"""Generates long videos of the embedded world as decoded blocks, with prompt switches, for the long suites.

Dimensions: B video, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.generate.arm import Arm
from astro_cli.rollout.switch_schedule import SwitchSchedule, whole_blocks
from astro_cli.rollout.switching import SwitchRule

TIMED_RUNS = 3  # videos whose blocks are timed
MAX_SHARE = 0.999  # progress of a batch whose videos are made but not scored


def frames_of(arm: Arm, seconds: float) -> int:
    """Latent frames of a video of that many seconds of the embedded world: those that hold seconds x fps frames,
    rounded up to whole blocks.
    """
    video = arm.card["video"]
    return whole_blocks(arm.backbone.num_latents(math.ceil(seconds * video["fps"])), video["block"])


def turning_points(arm: Arm, seconds: Sequence[float]) -> list[int]:
    """The latent frames at which prompts asked for at these seconds take over: starts of blocks, since a switch acts at
    the next block.
    """
    video = arm.card["video"]
    return [whole_blocks(arm.backbone.num_latents(round(second * video["fps"])), video["block"]) for second in seconds]


def cache_protocol(arm: Arm, frames: int) -> dict[str, Any]:
    """The cache videos of that length are streamed with: window, sink, position rule and sink policy."""
    return arm.stream_spec(frames).cache.model_dump()


@torch.no_grad()
def decoded_blocks(
    arm: Arm,
    prompts: list[str],
    seeds: list[int],
    frames: int,
    switches: Sequence[tuple[int, list[str]]] = (),
    rule: SwitchRule | None = None,
) -> Iterator[torch.Tensor]:
    """Blocks (B, T, C, H, W) of videos in [0, 1], decoded as they are made. Arguments and errors as `latent_blocks`."""
    decoder = arm.backbone.decoder()
    for latents_BFCHW in latent_blocks(arm, prompts, seeds, frames, switches, rule):
        yield decoder.push(latents_BFCHW).cpu()


@torch.no_grad()
def latent_blocks(
    arm: Arm,
    prompts: list[str],
    seeds: list[int],
    frames: int,
    switches: Sequence[tuple[int, list[str]]] = (),
    rule: SwitchRule | None = None,
) -> Iterator[torch.Tensor]:
    """Blocks (B, block, C, H, W) of latents as they are made, after those a video is given.

    Args:
        switches: (frame, prompts of all videos) in order.
        rule: what a switch does to the cached past; default that of `Streamer.switch`.

    Raises:
        CheckpointError: a multi-step teacher, which makes whole clips.
    """
    if not arm.streams:
        what = f"found {arm.card['sampling']!r}, long videos are streamed by a few-step student"
        raise CheckpointError(arm.path, "sampling", what, hint="evaluate the teacher on `shapes`")
    schedule = SwitchSchedule(switches, frames, arm.card["video"]["block"])
    streamer = arm.streamer(prompts, seeds, frames)
    if streamer.spec.given is not None:
        yield streamer.spec.given
    while streamer.frame < frames:
        turned = schedule.due(streamer.frame)
        if turned is not None:
            streamer.switch(arm.text(turned), rule)
        yield streamer.next_block()


@torch.no_grad()
def kv_memory_growth(arm: Arm, prompt: str, frames: int) -> float:
    """Bytes of keys and values that a video of that many frames holds at its end, over those of a video of three blocks
    more than the window.
    """
    block = arm.card["video"]["block"]
    window = arm.stream_spec(frames).cache.window
    shortest = frames if window is None else min(frames, (window // block + 3) * block)
    kv_bytes = []
    for length in (shortest, frames):
        streamer = arm.streamer([prompt], [0], length)
        while streamer.frame < length:
            streamer.next_block()
        kv_bytes.append(streamer.cache.bytes + streamer.cache.sink_bytes)
    return kv_bytes[1] / kv_bytes[0]


def frame_time_growth(arm: Arm, prompt: str, frames: int) -> list[float]:
    """Time per frame at the end of a video over that at its beginning, codec included: medians over the first and the
    last third of the blocks that are made with a full window. One value per run.

    Reward Forcing (arXiv 2512.04678), section 3.4. **Deviations:** the paper says so and prints no number.
    """
    block = arm.card["video"]["block"]
    window = arm.stream_spec(frames).cache.window
    full = 0 if window is None else -(-window // block)
    ratios = []
    for seed in range(TIMED_RUNS):
        moments = [time.perf_counter()]
        for _ in decoded_blocks(arm, [prompt], [seed], frames):
            moments.append(time.perf_counter())
        took = [after - before for before, after in pairwise(moments)][full:] or [1.0]
        third = max(1, len(took) // 3)
        ratios.append(median(took[-third:]) / median(took[:third]))
    return ratios


def done_of(rows: range, frame: int, frames: int) -> int:
    """Prompts that count as done, for a progress bar, when the videos of these rows have `frame` of their `frames`
    frames.
    """
    return rows.start + int(MAX_SHARE * len(rows) * frame / frames)

"""The suite of the embedded world: held-out prompts and clips of the trained length, scored by the oracle.

Owns the protocol.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from astro_cli.core.rng import stream
from astro_cli.generate.arm import Arm
from astro_cli.shapes.grammar import caption, parse, random_scene
from eval.world import oracle_scores
from eval.world.oracle_scores import join_batches, noise_seeds, score_clips
from eval.world.suites import Scores

NAME = "shapes"
VERSION = 1
METRICS = oracle_scores.METRICS
BATCH = 64  # clips generated at once
THROUGHPUT_RUNS, STREAMING_RUNS, BRIEF_RUNS = 100, 10, 20
STREAMED_WINDOWS = 3


def prompt_set(count: int) -> list[str]:
    """The first `count` prompts of the held-out set: complete one-object captions, from a stream training never draws
    from.
    """
    return [caption(random_scene(stream("shapes-benchmark", VERSION, index))) for index in range(count)]


def num_frames(arm: Arm) -> int:
    return arm.card["video"]["frames"]


def protocol(arm: Arm) -> dict[str, Any]:
    return {}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Callable[[int, int], None]) -> Scores:
    """Generate every prompt once and score it. Returns per metric one score per prompt (None: does not apply)."""
    seeds, parts = noise_seeds(seed, len(prompts)), []
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        clips = arm.backbone.decode(arm.generate(prompts[rows], seeds[rows], num_frames(arm)))
        parts.append(score_clips(clips, [parse(prompt) for prompt in prompts[rows]], arm.backbone.world.pace))
        progress(min(start + BATCH, len(prompts)), len(prompts))
    return join_batches(parts)


def _codec(arm: Arm) -> tuple[str | None, Path | None]:
    """What an arm's clips are decoded by: its codec, and the decoder that was trained with its weights."""
    own = arm.card.get("decoder")
    return arm.card["codec"], None if own is None else arm.path.parent / own


def streaming_frames(arms: list[Arm]) -> int:
    """Latent frames of a video in which every arm's window is full for most of the time: three times the longest."""
    windows = [arm.stream_spec(None).cache.window if arm.streams else 0 for arm in arms]
    longest = max((window or 0 for window in windows), default=0)
    block = arms[0].card["video"]["block"]
    return max(num_frames(arms[0]), -(-STREAMED_WINDOWS * longest // block) * block)


def throughput(arms: list[Arm], frames: int | None = None, runs: int | None = None) -> list[list[float]]:
    """Pixel frames per second of single-video generation, codec included: per arm one value per run, after a warm-up.

    Args:
        frames: latent frames of a video; default those of a training clip.
        runs: default `THROUGHPUT_RUNS`.

    The arms take turns, every other time in reverse order, so that what the machine does besides slows all of them
    alike; and they take turns in one network per size, into which their weights are copied, and with one codec: where
    weights lie in memory alone changes the rate of a CPU by 2 %.
    """
    shells = {(arm.network.config, arm.network.span): copy.deepcopy(arm.network) for arm in arms}
    codecs = {_codec(arm): arm.backbone for arm in arms}
    rates: list[list[float]] = [[] for _ in arms]
    for run in range((runs or THROUGHPUT_RUNS) + 1):
        for arm, arm_rates in list(zip(arms, rates, strict=True))[:: -1 if run % 2 else 1]:
            shell, length = shells[arm.network.config, arm.network.span], frames or num_frames(arm)
            shell.load_state_dict(arm.network.state_dict())
            timed, began = replace(arm, network=shell, backbone=codecs[_codec(arm)]), time.perf_counter()
            timed.backbone.decode(timed.generate(prompt_set(1), [run], length))
            arm_rates.append(arm.backbone.num_frames(length) / (time.perf_counter() - began))
    return [arm_rates[1:] for arm_rates in rates]

"""The benchmark of the embedded world: held-out prompts, the oracle's attributes, and its VQ, MQ and TA. Owns the protocol, not the store.

VQ, MQ and TA are the oracle's, over all frames; the training rewards of the same names are other formulas (best 30 % of frames, no oracle), so
what RL gains by exploiting a reward does not count here.
Dimensions: B clip, T frame.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import torch

from astro_cli.core.rng import stream, stream_seed
from astro_cli.shapes.grammar import Scene, caption, parse, random_scene
from astro_cli.shapes.oracle import ATTRIBUTES, QUALITIES, Measurement, agreement, measure
from eval.arms import Arm

NAME = "shapes"
VERSION = 1
BATCH = 64  # clips generated at once
LIVELY = 0.25  # dynamics of a slow object in nine frames: enough motion for full marks
STILL_FLOOR = 0.5  # share of the motion score a picture that does not move can reach
THROUGHPUT_RUNS = 10


def held_out_prompts(count: int) -> list[str]:
    """The first `count` prompts of the held-out set: complete one-object captions, from a stream training never draws from."""
    return [caption(random_scene(stream("shapes-benchmark", VERSION, index))) for index in range(count)]


def prompt_set_hash(prompts: list[str]) -> str:
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]


def visual_quality(m: Measurement) -> torch.Tensor:
    """VQ (B,): a visible object, crisp and without noise, on average over all frames."""
    return m.presence * (m.sharpness + m.cleanliness) / 2


def motion_quality(m: Measurement) -> torch.Tensor:
    """MQ (B,): steady, flicker-free motion of one and the same object; a picture that does not move gets half."""
    steady = m.presence * (m.smoothness + m.flicker + m.identity) / 3
    lively = (m.dynamics / LIVELY).clamp(max=1)
    return steady * (STILL_FLOOR + (1 - STILL_FLOOR) * lively)


def text_alignment(agreed: dict[str, torch.Tensor]) -> torch.Tensor:
    """TA (B,): share of the stated attributes that the clip shows."""
    return torch.stack([agreed[name] for name in ATTRIBUTES]).nanmean(0)


def score_clips(frames_BTCHW: torch.Tensor, scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """All metrics of the benchmark per clip, (B,) each, NaN where one does not apply."""
    measured = measure(frames_BTCHW)
    agreed = agreement(measured, scenes)
    scores = {"vq": visual_quality(measured), "mq": motion_quality(measured), "ta": text_alignment(agreed)}
    return scores | agreed | {name: getattr(measured, name) for name in QUALITIES}


def noise_seeds(seed: int, count: int) -> list[int]:
    """Noise of the paired comparison: the same for every arm at the same seed."""
    return [stream_seed("shapes-benchmark-noise", seed, index) for index in range(count)]


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Callable[[int, int], None]) -> dict[str, list[float | None]]:
    """Generate every prompt once and score it. Returns per metric one score per prompt (None: does not apply)."""
    frames, seeds = arm.card["video"]["frames"], noise_seeds(seed, len(prompts))
    parts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        clips = arm.backbone.decode(arm.generate(prompts[rows], seeds[rows], frames))
        for key, value in score_clips(clips, [parse(prompt) for prompt in prompts[rows]]).items():
            parts.setdefault(key, []).append(value)
        progress(min(start + BATCH, len(prompts)), len(prompts))
    return {key: [None if value != value else float(value) for value in torch.cat(values).tolist()] for key, values in parts.items()}


def throughput(arms: list[Arm]) -> list[list[float]]:
    """Frames per second of single-video generation, codec included: per arm one value per run, after a warm-up run.

    The arms take turns, so that what the machine does besides slows all of them alike.
    """
    rates: list[list[float]] = [[] for _ in arms]
    for run in range(THROUGHPUT_RUNS + 1):
        for arm, found in zip(arms, rates, strict=True):
            frames, began = arm.card["video"]["frames"], time.perf_counter()
            arm.backbone.decode(arm.generate(held_out_prompts(1), [run], frames))
            found.append(frames / (time.perf_counter() - began))
    return [found[1:] for found in rates]

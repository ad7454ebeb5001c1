"""VQ, MQ and TA of clips by the oracle of the embedded world, and the noise of paired comparisons.

VQ, MQ and TA are the oracle's, over all frames; the training rewards of the same names are other formulas (best 30 % of
frames, no oracle), so what RL gains by exploiting a reward does not count here.
Dimensions: B clip, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch

from astro_cli.core.rng import stream_seed
from astro_cli.core.stats import concatenated
from astro_cli.shapes.grammar import Scene
from astro_cli.shapes.oracle import ATTRIBUTES, QUALITIES, Measurement, agreement, measure
from astro_cli.shapes.two_objects import is_pair, pair_agreement
from eval.world.suites import Scores

LIVELY = 0.25  # dynamics of a slow object in nine frames: enough motion for full marks
STILL_FLOOR = 0.5  # share of the motion score a picture that does not move can reach
HEADLINE = ("vq", "mq", "ta")
METRICS = (*HEADLINE, *ATTRIBUTES, *QUALITIES)  # of `score_clips`


def visual_quality(m: Measurement) -> torch.Tensor:
    """VQ (B,): a visible object, crisp and without noise, on average over all frames."""
    return m.presence * (m.sharpness + m.cleanliness) / 2


def motion_quality(m: Measurement) -> torch.Tensor:
    """MQ (B,): steady, flicker-free motion of one and the same object; a picture that does not move gets half."""
    steady = m.presence * (m.smoothness + m.flicker + m.identity) / 3
    lively = (m.dynamics / LIVELY).clamp(max=1)
    return steady * (STILL_FLOOR + (1 - STILL_FLOOR) * lively)


def text_alignment(agreed: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """TA (B,): share of the stated attributes that the clip shows."""
    return torch.stack([agreed[name] for name in ATTRIBUTES]).nanmean(0)


def score_clips(frames_BTCHW: torch.Tensor, scenes: list[Scene], pace: float = 1.0) -> dict[str, torch.Tensor]:
    """All of `METRICS` per clip in a world of this pace, (B,) each, NaN where one does not apply."""
    measured = measure(frames_BTCHW, pace)
    agreed = _agreed(frames_BTCHW, measured, scenes, pace)
    scores = {"vq": visual_quality(measured), "mq": motion_quality(measured), "ta": text_alignment(agreed)}
    return scores | agreed | {name: getattr(measured, name) for name in QUALITIES}


def _agreed(
    frames_BTCHW: torch.Tensor, measured: Measurement, scenes: list[Scene], pace: float
) -> dict[str, torch.Tensor]:
    """Agreement with the first object; of scenes with two objects of two colours the mean over both."""
    agreed = agreement(measured, scenes)
    pairs = [row for row, scene in enumerate(scenes) if is_pair(scene)]
    if pairs:
        both = pair_agreement(frames_BTCHW[pairs], [scenes[row] for row in pairs], pace)
        for name, values in agreed.items():
            values[pairs] = torch.stack([shown[name] for shown in both]).nanmean(0)
    return agreed


def join_batches(parts: Sequence[Mapping[str, torch.Tensor]]) -> Scores:
    """Scores of batches in order, as lists, with None for NaN."""
    scores: Scores = {}
    for key, values in concatenated(parts).items():
        scores[key] = [None if value != value else float(value) for value in values.tolist()]
    return scores


def noise_seeds(seed: int, count: int) -> list[int]:
    """Noise of the paired comparison: the same for every arm at the same seed."""
    return [stream_seed("shapes-benchmark-noise", seed, index) for index in range(count)]


def prompt_set_hash(prompts: list[str]) -> str:
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]

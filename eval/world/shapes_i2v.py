"""The image-to-video suite of the embedded world: clips whose first frame is given, the rendered scene of the prompt.
Owns the protocol.

Every student gets the same pictures. One of single frames continues them as it was trained to; for others the picture
is a block of its own before theirs. Prompts and noise are those of `shapes`; clips have the trained length, or as much
of it as fits whole blocks behind the picture.
Source: TeleBoost (arXiv 2602.07595), Table 3, I2V; VBench-I2V (arXiv 2411.13503) for the agreement with the picture.

**Deviations**: the paper's I2V base sees the picture in extra channels of a bidirectional model; here streaming
students that find it in their cache.
Dimensions: B video, T frame, F latent frame, C channel or colour, H, W.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.generate.arm import Arm
from astro_cli.generate.rendered import first_frames
from astro_cli.shapes.grammar import parse
from eval.world import oracle_scores, shapes
from eval.world.first_frame import BACKGROUND, SUBJECT, agreement_with_first
from eval.world.long_scores import background_consistency, backgrounds
from eval.world.oracle_scores import join_batches, noise_seeds, score_clips
from eval.world.streams import cache_protocol
from eval.world.suites import Progress, Scores

NAME = "shapes-i2v"
VERSION = 1
BATCH = 32  # videos generated at once
TEMPORAL, DYNAMICS_WEIGHT = "temporal_quality", 0.5
METRICS = (*oracle_scores.METRICS, "background_consistency", TEMPORAL, SUBJECT, BACKGROUND)

prompt_set = shapes.prompt_set


def num_frames(arm: Arm) -> int:
    block = arm.card["video"]["block"]
    return 1 + (arm.card["video"]["frames"] - 1) // block * block


def protocol(arm: Arm) -> dict[str, Any]:
    return {"given_frames": 1, "cache": cache_protocol(arm, num_frames(arm))}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Continue every prompt's picture once and score the clip.

    Raises:
        CheckpointError: a multi-step teacher, which continues no frame.
    """
    return evaluate_videos(arm, seed, prompts, num_frames(arm), progress)


def evaluate_videos(arm: Arm, seed: int, prompts: list[str], frames: int, progress: Progress) -> Scores:
    """As `evaluate`, of videos of so many latent frames."""
    seeds, parts = noise_seeds(seed, len(prompts)), []
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        decoder = arm.decoder()
        blocks = [decoder.push(block).cpu() for block in continued(arm, prompts[rows], seeds[rows], frames)]
        parts.append(score_videos(torch.cat(blocks, 1), prompts[rows], arm.backbone.world.pace))
        progress(min(start + BATCH, len(prompts)), len(prompts))
    return join_batches(parts)


@torch.no_grad()
def continued(arm: Arm, prompts: list[str], seeds: list[int], frames: int) -> Iterator[torch.Tensor]:
    """Blocks (B, F, C, H, W) of latents: the pictures, then what the student makes of them."""
    if not arm.streams:
        what = f"found {arm.card['sampling']!r}, a picture is continued by a few-step student"
        raise CheckpointError(arm.path, "sampling", what, hint="evaluate the teacher on `shapes`")
    given = first_frames(arm.backbone, prompts, seeds, arm.pixels)
    streamer = arm.streamer(prompts, seeds, frames, given, first_frame_alone=True)
    yield given
    while streamer.frame < frames:
        yield streamer.next_block()


def score_videos(frames_BTCHW: torch.Tensor, prompts: list[str], pace: float) -> dict[str, torch.Tensor]:
    """All of `METRICS`, (B,) each, NaN where one does not apply."""
    scores = score_clips(frames_BTCHW, [parse(prompt) for prompt in prompts], pace)
    scores["background_consistency"] = background_consistency(backgrounds(frames_BTCHW))
    scores[TEMPORAL] = temporal_quality(scores)
    return scores | agreement_with_first(frames_BTCHW)


def temporal_quality(scores: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B,) mean of identity, background, smoothness and dynamics, the last at half weight: AAPT's Table 1."""
    full = scores["identity"] + scores["background_consistency"] + scores["smoothness"]
    return (full + DYNAMICS_WEIGHT * scores["dynamics"]) / (3 + DYNAMICS_WEIGHT)

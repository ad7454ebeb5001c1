"""Contact sheets of a base above its tuned student, same prompts and noise: short, 30 s and six-prompt videos.

Dimensions: B video, T frame, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from astro_cli.generate import media
from astro_cli.generate.arm import Arm
from eval.world import shapes, shapes_long, shapes_multi
from eval.world.oracle_scores import noise_seeds
from eval.world.streams import decoded_blocks

Pair = tuple[Arm, Arm]  # base, tuned
NAMES = ("base", "tuned")
SHORT_PROMPTS, LONG_PROMPTS = 6, 4
SHORT_SCALE, LONG_SCALE, MULTI_SCALE = 6, 5, 5  # pixels per world pixel
APART = 2.25  # seconds between two columns: no multiple of the time in which an object goes round, 1 or 2 s


def short_clips(arm: Arm, prompts: list[str]) -> np.ndarray:
    """Decoded clips (B, T, H, W, 3) of the trained length, at the suite's first noise seed."""
    latents = arm.generate(prompts, noise_seeds(0, len(prompts)), arm.card["video"]["frames"])
    return _pictures(arm.backbone.decode(latents))


def short_sheet(pair: Pair, path: Path) -> None:
    """Every frame of the first held-out prompts."""
    prompts = shapes.prompt_set(SHORT_PROMPTS)
    write_short_sheet(prompts, [short_clips(arm, prompts) for arm in pair], path, pair[0].backbone.fps)


def write_short_sheet(prompts: Sequence[str], clips: Sequence[np.ndarray], path: Path, fps: float) -> None:
    """A sheet of clips that are there: one (B, T, H, W, 3) array for the base, one for the tuned student."""
    media.contact_sheet(_rows(prompts, clips), path, SHORT_SCALE, fps=fps)


def long_sheet(pair: Pair, path: Path) -> None:
    """A frame every 2.25 s of 30 s videos; the columns say the time."""
    prompts, frames, fps = (
        shapes.prompt_set(LONG_PROMPTS),
        shapes_long.num_frames(pair[0]),
        pair[0].card["video"]["fps"],
    )
    videos = []
    for arm in pair:
        blocks = [_pictures(block) for block in decoded_blocks(arm, prompts, noise_seeds(0, LONG_PROMPTS), frames)]
        videos.append(np.concatenate(blocks, axis=1))
    media.contact_sheet(_rows(prompts, videos), path, LONG_SCALE, every=round(APART * fps), fps=fps)


def multi_sheet(pair: Pair, path: Path) -> None:
    """The segments of one six-prompt video below each other, each under its prompt; the numbers are seconds of the
    video, and the frames at which the prompt changed are outlined.
    """
    script, fps = shapes_multi.prompt_set(1)[0].split(shapes_multi.BETWEEN), pair[0].card["video"]["fps"]
    parts, rows = [], list[media.SheetRow]()
    for arm in pair:
        segments = shapes_multi.segments(arm, [script], noise_seeds(0, 1))
        parts.append([_pictures(clip)[0] for clip, _ in segments])
    starts = [pair[0].backbone.num_frames(latents) for latents in shapes_multi.segment_starts(pair[0])]
    for start, prompt, *clips in zip(starts, script, *parts, strict=True):
        for name, clip in zip(NAMES, clips, strict=True):
            rows.append(media.SheetRow(f"{name}: {prompt}", clip, start, is_switch=start > 0))
    media.contact_sheet(rows, path, MULTI_SCALE, every=round(APART * fps), fps=fps)


def _rows(prompts: Sequence[str], videos: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [
        (f"{name}: {prompt}", video[row])
        for row, prompt in enumerate(prompts)
        for name, video in zip(NAMES, videos, strict=True)
    ]


def _pictures(frames_BTCHW: torch.Tensor) -> np.ndarray:
    return frames_BTCHW.permute(0, 1, 3, 4, 2).cpu().numpy()

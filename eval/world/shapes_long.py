"""The long suite of the embedded world: 30 s videos of one prompt each, scored by the oracle over the whole video.
Owns the protocol.

30 s of the embedded world are 63 latent frames (21 blocks of 3); training clips have 9, which are 4 s. In the paper,
30 s stand against 5 s. Prompts and noise are those of `shapes`, so up to the trained length a video is the clip scored
there. Only the decoded frames grow with the length: videos stream through a window of the trained length, or through
the student's own with its sink, with positions relative to the window.
Source: Astrolabe (arXiv 2603.17051) section 4.3, Table 2; Infinity-RoPE (arXiv 2511.20649) for students trained on
short clips.

**Deviations**: VBench-Long cuts a video into clips and averages their scores; the oracle takes the whole video, so an
object that changes between two clips counts. Beside it stand the scores of the first and the last third: their
difference is the drift. 64 prompts instead of VBench's 946.
Dimensions: B video, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

from typing import Any

import torch

from astro_cli.generate.arm import Arm
from astro_cli.shapes.grammar import Scene, parse
from eval.world import oracle_scores, shapes
from eval.world.long_scores import background_consistency, backgrounds, clip_qualities, drift
from eval.world.oracle_scores import HEADLINE, join_batches, noise_seeds, score_clips
from eval.world.streams import cache_protocol, decoded_blocks, done_of, frame_time_growth, frames_of, kv_memory_growth
from eval.world.suites import Progress, Scores

NAME = "shapes-long"
VERSION = 1
SECONDS = 30
BATCH = 32  # videos generated at once
KV_GROWTH, TIME_GROWTH = "kv_memory_growth", "frame_time_growth"
METRICS = (
    *oracle_scores.METRICS,
    *(f"{metric}_{third}_third" for metric in HEADLINE for third in ("first", "last")),
    "drift",
    "background_consistency",
    KV_GROWTH,
    TIME_GROWTH,
)

prompt_set = shapes.prompt_set


def num_frames(arm: Arm) -> int:
    return frames_of(arm, SECONDS)


def protocol(arm: Arm) -> dict[str, Any]:
    return {"seconds": SECONDS, "cache": cache_protocol(arm, num_frames(arm))}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Stream every prompt once and score it. Returns per metric one score per prompt (None: does not apply), one
    growth of the KV memory, and a growth of the time per frame for every video that is timed.

    Raises:
        CheckpointError: a multi-step teacher.
    """
    seeds, frames, parts = noise_seeds(seed, len(prompts)), num_frames(arm), []
    for start in range(0, len(prompts), BATCH):
        rows = range(start, min(start + BATCH, len(prompts)))
        blocks = []
        for block_BTCHW in decoded_blocks(arm, prompts[start : rows.stop], seeds[start : rows.stop], frames):
            blocks.append(block_BTCHW)
            progress(done_of(rows, len(blocks) * arm.card["video"]["block"], frames), len(prompts))
        scenes = [parse(prompt) for prompt in prompts[start : rows.stop]]
        parts.append(score_videos(torch.cat(blocks, 1), scenes, arm.backbone.fps, arm.backbone.world.pace))
        progress(rows.stop, len(prompts))
    growth: list[float | None] = [kv_memory_growth(arm, prompts[0], frames)]
    times: list[float | None] = [*frame_time_growth(arm, prompts[0], frames)]
    return {**join_batches(parts), KV_GROWTH: growth, TIME_GROWTH: times}


def score_videos(
    frames_BTCHW: torch.Tensor, scenes: list[Scene], fps: float, pace: float = 1.0
) -> dict[str, torch.Tensor]:
    """All of `METRICS` that videos have, (B,) each, NaN where one does not apply."""
    third = frames_BTCHW.shape[1] // 3
    scores = score_clips(frames_BTCHW, scenes, pace)
    first, last = (score_clips(part, scenes, pace) for part in (frames_BTCHW[:, :third], frames_BTCHW[:, -third:]))
    edges = {
        f"{metric}_{name}_third": part[metric]
        for metric in HEADLINE
        for name, part in (("first", first), ("last", last))
    }
    lasting = {
        "drift": drift(clip_qualities(frames_BTCHW, fps, pace)),
        "background_consistency": background_consistency(backgrounds(frames_BTCHW)),
    }
    return scores | edges | lasting

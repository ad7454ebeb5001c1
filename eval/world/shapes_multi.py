"""The multi-prompt suite of the embedded world: 60 s videos of six prompts in turn, each segment scored by its own.
Owns the protocol.

60 s are 480 frames at the world's 8 fps, 123 latent frames in whole blocks. A prompt is asked for every 80 frames and
takes over at the next block: at the latent frames 21, 42, 63, 81 and 102, which are the bounds of the segments. Every
arm switches alike, as LongLive does: the visible past is recomputed under the new prompt, the sink is kept. A story is
one object before one background; from prompt to prompt it changes one or two of size, colour, shape and motion. Noise
is that of `shapes`.
Source: Astrolabe (arXiv 2603.17051) section 4.4, Table 3; LongLive (arXiv 2509.22622) section 3.1 for the switch.

**Deviations**: all but the text score are means over the six segments, since over the whole video the oracle would
count the changes that the prompts ask for as faults; what happens at a switch counts in the segment that begins there.
Drift and background consistency are of whole videos. Stories of the grammar instead of written scripts, 32 of them
instead of 100. Students trained on short clips stream as in `shapes_long`.
Dimensions: B video, K segment, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from astro_cli.core.rng import stream
from astro_cli.generate.arm import Arm
from astro_cli.rollout.switching import SwitchRule
from astro_cli.shapes.grammar import caption, parse
from astro_cli.shapes.stories import story
from eval.world import oracle_scores
from eval.world.long_scores import background_consistency, backgrounds, clip_qualities, drift
from eval.world.oracle_scores import join_batches, noise_seeds, score_clips
from eval.world.streams import cache_protocol, decoded_blocks, done_of, frames_of, turning_points
from eval.world.suites import Progress, Scores

NAME = "shapes-multi"
VERSION = 1
SEGMENTS = 6
SECONDS = 10  # of a segment
BATCH = 32  # videos generated at once
BETWEEN = " | "  # between the prompts of a script, which is an entry of the prompt set
RULE = SwitchRule(recache="bidirectional", renew_sink=False)
METRICS = (
    *oracle_scores.METRICS,
    *(f"ta_segment_{place}" for place in range(1, SEGMENTS + 1)),
    "drift",
    "background_consistency",
)


def prompt_set(count: int) -> list[str]:
    """The first `count` scripts of the held-out set, six prompts each, from a stream of their own."""
    stories = [story(stream("shapes-multi-benchmark", VERSION, index), SEGMENTS) for index in range(count)]
    return [BETWEEN.join(map(caption, scenes)) for scenes in stories]


def num_frames(arm: Arm) -> int:
    return frames_of(arm, SEGMENTS * SECONDS)


def segment_starts(arm: Arm) -> list[int]:
    """The first latent frame of every segment."""
    return [0, *turning_points(arm, [SECONDS * place for place in range(1, SEGMENTS)])]


def protocol(arm: Arm) -> dict[str, Any]:
    cache, starts = cache_protocol(arm, num_frames(arm)), segment_starts(arm)
    return {"seconds": SEGMENTS * SECONDS, "segments": starts, "switch": RULE.model_dump(), "cache": cache}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Stream every script once and score its segments. Returns per metric one score per script (None: does not apply).

    Raises:
        CheckpointError: a multi-step teacher.
    """
    seeds, frames, parts = noise_seeds(seed, len(prompts)), num_frames(arm), []
    for start in range(0, len(prompts), BATCH):
        rows = range(start, min(start + BATCH, len(prompts)))
        scripts = [prompt.split(BETWEEN) for prompt in prompts[start : rows.stop]]
        scored, quality, shown = [], list[torch.Tensor](), list[torch.Tensor]()
        for place, (clip_BTCHW, end) in enumerate(segments(arm, scripts, seeds[start : rows.stop])):
            scenes = [parse(script[place]) for script in scripts]
            scored.append(score_clips(clip_BTCHW, scenes, arm.backbone.world.pace))
            quality.append(clip_qualities(clip_BTCHW, arm.backbone.fps, arm.backbone.world.pace))
            shown.append(backgrounds(clip_BTCHW))
            progress(done_of(rows, end, frames), len(prompts))
        lasting = {"drift": drift(torch.cat(quality, 1)), "background_consistency": _stays(shown)}
        parts.append(joined(scored) | lasting)
        progress(rows.stop, len(prompts))
    return join_batches(parts)


def segments(arm: Arm, scripts: list[list[str]], seeds: list[int]) -> Iterator[tuple[torch.Tensor, int]]:
    """The decoded frames (B, T, C, H, W) of each segment in turn, and the latent frame it ends before; no more than one
    segment is held.
    """
    starts = segment_starts(arm)
    prompts = [*map(list, zip(*scripts, strict=True))]  # of every segment
    switches = list(zip(starts[1:], prompts[1:], strict=True))
    ends, blocks, made = [*starts[1:], num_frames(arm)], list[torch.Tensor](), 0
    for block_BTCHW in decoded_blocks(arm, prompts[0], seeds, ends[-1], switches, RULE):
        blocks.append(block_BTCHW)
        made += arm.card["video"]["block"]
        if made == ends[0]:
            yield torch.cat(blocks, 1), ends.pop(0)
            blocks.clear()


def _stays(shown: list[torch.Tensor]) -> torch.Tensor:
    """A story changes its object, never its background: it is compared over the whole video."""
    return background_consistency(torch.cat(shown, 1))


def joined(scored: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Scores of the segments per video, (B,) each: means over the segments, and each segment's text score."""
    means = {}
    for key in scored[0]:
        means[key] = torch.stack([segment[key] for segment in scored]).nanmean(0)
    return means | {f"ta_segment_{place}": segment["ta"] for place, segment in enumerate(scored, start=1)}

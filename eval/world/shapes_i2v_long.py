"""The long image-to-video suite of the embedded world: 60 s from the rendered first frame of each prompt. Owns the
protocol; what is measured is that of `shapes_i2v`.

60 s are 121 latent frames, the first of which is the picture. Students stream past the trained length as in
`shapes_long`.
Source: AAPT (arXiv 2506.09350), supplement H, Table 1: videos of 60 s, at two sizes.

**Deviations**: 32 prompts and one sample each instead of VBench-I2V's with five. The sizes are 32 x 32, as trained, and
`--size 48x48`.
"""

from __future__ import annotations

import math
from typing import Any

from astro_cli.generate.arm import Arm
from astro_cli.rollout.switch_schedule import whole_blocks
from eval.world import shapes, shapes_i2v
from eval.world.streams import cache_protocol
from eval.world.suites import Progress, Scores

NAME = "shapes-i2v-long"
VERSION = 1
SECONDS = 60
METRICS = shapes_i2v.METRICS

prompt_set = shapes.prompt_set


def num_frames(arm: Arm) -> int:
    video = arm.card["video"]
    wanted = arm.backbone.num_latents(math.ceil(SECONDS * video["fps"]))
    return whole_blocks(wanted, video["block"], first_frame_alone=True)


def protocol(arm: Arm) -> dict[str, Any]:
    return {"seconds": SECONDS, "given_frames": 1, "cache": cache_protocol(arm, num_frames(arm))}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Continue every prompt's picture once and score the video.

    Raises:
        CheckpointError: a multi-step teacher.
    """
    return shapes_i2v.evaluate_videos(arm, seed, prompts, num_frames(arm), progress)

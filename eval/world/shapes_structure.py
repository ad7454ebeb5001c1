"""The suite of structure of the embedded world: clips of held-out scenes under a panning camera and under one at rest,
scored by the oracle's structural stability. Owns the protocol.

Every scene is asked for twice, with a pan and without, from the same noise: a fine-tuning on pans should raise the
first and leave the second.
Source: TeleBoost (arXiv 2602.07595), section 7.3.1, which shows pictures.

**Deviations**: the measure is ours (`shapes.structure`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from astro_cli.core.rng import stream
from astro_cli.generate.arm import Arm
from astro_cli.shapes.grammar import DIRECTIONS, caption, parse, random_scene
from astro_cli.shapes.structure import structural_stability
from eval.world import shapes
from eval.world.oracle_scores import join_batches, noise_seeds
from eval.world.suites import Progress, Scores

NAME = "shapes-structure"
VERSION = 1
BATCH = 32
PANNED, AT_REST = "structural_stability", "structural_stability_rest"
METRICS = (PANNED, AT_REST)

num_frames = shapes.num_frames


def prompt_set(count: int) -> list[str]:
    """Held-out captions in pairs: with a panning camera, and the same scene at rest."""
    prompts = []
    for index in range(-(-count // 2)):
        scene = random_scene(stream(NAME, VERSION, index))
        prompts += [caption(replace(scene, pan=DIRECTIONS[index % len(DIRECTIONS)])), caption(scene)]
    return prompts[:count]


def protocol(arm: Arm) -> dict[str, Any]:
    return {}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Generate every prompt once and score it; a prompt has a score in the metric of its camera."""
    pairs = noise_seeds(seed, -(-len(prompts) // 2))
    seeds = [pairs[place // 2] for place in range(len(prompts))]
    parts = []
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        clips = arm.backbone.decode(arm.generate(prompts[rows], seeds[rows], num_frames(arm)))
        stability_B = structural_stability(clips)
        panned_B = torch.tensor([parse(prompt).pan is not None for prompt in prompts[rows]])
        nothing = torch.tensor(float("nan"))
        parts.append(
            {
                PANNED: torch.where(panned_B, stability_B, nothing),
                AT_REST: torch.where(panned_B, nothing, stability_B),
            }
        )
        progress(min(start + BATCH, len(prompts)), len(prompts))
    return join_batches(parts)

"""What an untuned base scores by the training rewards: the dashed line of reward curves. Draws nothing and trains nothing.

An epoch of training has too few prompts to say it. Dimensions: B clip, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from astro_cli.rewards.shapes import REWARDS
from eval.arms import Arm
from eval.benchmarks import shapes
from eval.benchmarks.oracle_scores import noise_seeds

PROMPTS = 256  # held-out prompts; they are drawn as the training prompts are, from another stream


def base_rewards(arm: Arm, weights: Mapping[str, float]) -> dict[str, float]:
    """Means over clips of the trained length, by the keys of metrics.jsonl: every reward, and `reward/total`, their sum with these weights."""
    prompts, seeds, rewards = shapes.prompt_set(PROMPTS), noise_seeds(0, PROMPTS), {key: REWARDS[key]() for key in weights}
    found: dict[str, list[torch.Tensor]] = {key: [] for key in weights}
    for start in range(0, PROMPTS, shapes.BATCH):
        rows = slice(start, start + shapes.BATCH)
        frames_BTCHW = arm.backbone.decode(arm.generate(prompts[rows], seeds[rows], shapes.num_frames(arm)))
        for key, reward in rewards.items():
            found[key].append(reward.score(frames_BTCHW, prompts[rows]))
    means = {key: float(torch.cat(scores).mean()) for key, scores in found.items()}
    total = sum(weight * means[key] for key, weight in weights.items())
    return {f"reward/{key}": value for key, value in means.items()} | {"reward/total": total}

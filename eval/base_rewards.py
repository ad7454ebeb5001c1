"""What an untuned base scores by the training rewards on a run's own prompts: the dashed curve beside it. Draws nothing and trains nothing.

An epoch has few prompts, and they differ more than the policies do: only on the same ones does the distance of two curves mean something.
Dimensions: B clip, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from astro_cli.core.rng import stream_seed
from astro_cli.recipe import Recipe
from astro_cli.rewards.shapes import REWARDS
from astro_cli.training.sources import PromptSource
from eval.arms import Arm
from eval.benchmarks import shapes

CLIPS = 2  # per prompt: with three seeds, a smoothed point of the curve then stands for 264 clips


def base_rows(arm: Arm, recipe: Recipe, seed: int, epochs: int) -> list[dict[str, Any]]:
    """Rows as metrics.jsonl has them, one per epoch: every reward of the base, and `reward/total`, their sum with the recipe's weights.

    A prompt has `CLIPS` clips, from the noise of its group's first members, so that epoch 0 holds clips which the run saw too.
    """
    name = recipe.order[-1]
    experience, data = recipe.stages[name].experience, recipe.stages[name].data
    assert experience is not None, "an RL recipe"
    source = PromptSource(seed, lambda prompts: torch.empty(len(prompts), 0), data.drop, data.prompts)
    asked = [source.batch(name, epoch, "prompts", experience.prompts) for epoch in range(epochs)]
    members = range(min(CLIPS, experience.group))
    prompts = [prompt for batch in asked for prompt in batch.prompts for _ in members]
    seeds = [stream_seed(owner, "member", member) for batch in asked for owner in batch.seeds for member in members]
    means = {key: scores.reshape(epochs, -1).mean(1).tolist() for key, scores in _scores(arm, prompts, seeds, experience.rewards).items()}
    return [{"stage": name, "step": epoch, **{key: values[epoch] for key, values in means.items()}} for epoch in range(epochs)]


def _scores(arm: Arm, prompts: list[str], seeds: list[int], weights: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """(B,) by key of metrics.jsonl, from clips of the trained length."""
    rewards, found = {key: REWARDS[key]() for key in weights}, {key: [] for key in weights}
    for start in range(0, len(prompts), shapes.BATCH):
        rows = slice(start, start + shapes.BATCH)
        frames_BTCHW = arm.backbone.decode(arm.generate(prompts[rows], seeds[rows], shapes.num_frames(arm)))
        for key, reward in rewards.items():
            found[key].append(reward.score(frames_BTCHW, prompts[rows]))
    scores = {key: torch.cat(parts) for key, parts in found.items()}
    total = torch.stack([scores[key] * weight for key, weight in weights.items()]).sum(0)
    return {f"reward/{key}": values for key, values in scores.items()} | {"reward/total": total}

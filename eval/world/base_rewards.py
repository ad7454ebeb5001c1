"""Training rewards of an untuned base on a run's own prompts: the dashed curve beside the run's.

An epoch has few prompts, and they differ more than the policies do. Two curves can be compared only on the same
prompts. So the base rolls clips out as the run does: same prompts, windows and histories, and the noise of the groups'
first members.
"""

from __future__ import annotations

from typing import Any

import torch

from astro_cli.core.rng import stream_seed
from astro_cli.objectives.base import Batch
from astro_cli.rewards.embedded import embedded_reward
from astro_cli.spec import Recipe
from astro_cli.training.build import build
from astro_cli.training.clips import Clips, Roller, window_start
from astro_cli.training.sources import PromptSource, prompt_lines

CLIPS = 2  # per prompt: with three seeds, a smoothed point of the curve then stands for 264 clips
AT_ONCE = 8  # epochs rolled out together


def base_rows(recipe: Recipe, seed: int, epochs: int) -> list[dict[str, Any]]:
    """Rows as metrics.jsonl has them, one per epoch: every reward of the recipe's base, and `reward/total`, their sum
    with the recipe's weights.

    A prompt has `CLIPS` clips, so that epoch 0, before the first update, holds clips which the run saw too.
    """
    name = recipe.order[-1]
    experience, data = recipe.stages[name].experience, recipe.stages[name].data
    assert experience is not None, "an RL recipe"
    spec = experience.model_copy(update={"group": min(CLIPS, experience.group), "parallel": None})
    run_context, backbone = build(recipe, torch.device("cpu"))  # adapters start as no change, so theta_old is the base
    roller = Roller(
        spec, run_context, backbone, [embedded_reward(key, backbone.world.pace) for key in experience.rewards]
    )
    source = PromptSource(seed, backbone.encode_text, data.drop, prompt_lines(data))
    batches = [source.batch(name, epoch, "prompts", experience.prompts) for epoch in range(epochs)]
    starts = [
        window_start(spec, roller.frames, run_context.block, batch.shared) if spec.clip else 0 for batch in batches
    ]
    means: dict[int, dict[str, float]] = {}
    for start in sorted(set(starts)):
        alike = [epoch for epoch, its_start in enumerate(starts) if its_start == start]
        for first in range(0, len(alike), AT_ONCE):
            chosen = alike[first : first + AT_ONCE]
            clips = _roll_out(roller, [batches[epoch] for epoch in chosen], start)
            scores = {key: values.reshape(len(chosen), -1).mean(1).tolist() for key, values in clips.scores.items()}
            for row, epoch in enumerate(chosen):
                means[epoch] = {key: values[row] for key, values in scores.items()}
    return [_row(name, epoch, means[epoch], experience.rewards) for epoch in range(epochs)]


def _roll_out(roller: Roller, batches: list[Batch], start: int) -> Clips:
    """The clips of several epochs whose windows start at the same frame."""
    members, owners = range(roller.spec.group), [owner for batch in batches for owner in batch.seeds]
    prompts = [prompt for batch in batches for prompt in batch.prompts for _ in members]
    seeds = [stream_seed(owner, "member", member) for owner in owners for member in members]
    text = roller.backbone.encode_text(prompts)
    if not roller.spec.clip:
        return roller.sequences(prompts, seeds, text)
    return roller.candidates(prompts, seeds, text, owners, start)


def _row(stage: str, epoch: int, means: dict[str, float], weights: dict[str, float]) -> dict[str, Any]:
    total = sum(weight * means[key] for key, weight in weights.items())
    return {
        "stage": stage,
        "step": epoch,
        **{f"reward/{key}": value for key, value in means.items()},
        "reward/total": total,
    }

"""Scorers of a run's rewards by name: the embedded world's own, or on Wan networks that are read from their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from astro_cli.config.errors import RecipeError
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Score
from astro_cli.rewards.base import Reward, check_scores
from astro_cli.rewards.embedded import embedded_reward
from astro_cli.spec import Recipe
from astro_cli.training.needs import rolled


def load_scorers(
    keys: list[str],
    backbone: Backbone,
    device: torch.device,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Reward]:
    """The backbone's own scorers; Wan's are networks, read from their files now. `tables` are own keys of the
    evaluation's scorers.

    Raises:
        CheckpointError: a scorer's weights are missing, damaged or of another model.
    """
    if backbone.name == "shapes":
        return [embedded_reward(key, backbone.world.pace) for key in keys]
    from astro_cli.rewards.wan import load_rewards  # with transformers: seconds that the embedded world does without

    return load_rewards(keys, backbone.fps, device, tables)


def scorer_of(recipe: Recipe, backbone: Backbone, device: torch.device) -> Callable[[str], Score]:
    """What gives objectives the score of a reward, by its name, for clips as long as the recipe's videos, or as those
    that its objectives roll out.
    """
    lengths = [rolled(recipe.stages[stage]) or recipe.video.frames for stage in recipe.order]

    def make(key: str) -> Score:
        (reward,) = load_scorers([key], backbone, device)
        if (frames := backbone.num_frames(min(lengths))) < reward.num_frames_min:
            what = f"scores clips of {reward.num_frames_min} frames or more, the recipe's have {frames}"
            raise RecipeError("video.frames", key, what)

        def score(frames_BTCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            return check_scores(key, reward.score(frames_BTCHW, prompts).float(), len(prompts))

        return score

    return make

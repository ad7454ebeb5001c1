"""Which rewards one worker computes, and those rewards without the recipe's other networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from astro_cli.models.backbone import load_backbone
from astro_cli.rewards.base import Reward
from astro_cli.spec import Recipe
from astro_cli.training.scorers import load_scorers


def reward_units(recipe: Recipe) -> list[tuple[str, tuple[str, ...]]]:
    """Stage and rewards of each reward worker that a member has. Rewards of one network have one worker."""
    units = []
    for name in recipe.order:
        experience = recipe.stages[name].experience
        if experience is None:
            continue
        keys = list(experience.rewards if recipe.backbone == "shapes" else experience.scored)
        units += [(name, unit) for unit in together(keys, recipe.backbone)]
    return units


def together(keys: Sequence[str], backbone: str) -> list[tuple[str, ...]]:
    """Rewards in workers: those of VideoAlign, one network, together; the others alone."""
    if backbone == "shapes":
        return [(key,) for key in keys]
    from astro_cli.rewards.wan import BY_VIDEOALIGN  # with transformers

    aligned = tuple(key for key in keys if key in BY_VIDEOALIGN)
    return [*((key,) for key in keys if key not in aligned), *([aligned] if aligned else [])]


def rewards_alone(
    recipe: Recipe, keys: list[str], device: torch.device, tables: Mapping[str, Mapping[str, Any]]
) -> list[Reward]:
    """Rewards without the recipe's other networks."""
    if recipe.backbone == "shapes":
        return load_scorers(keys, load_backbone("shapes", recipe.base.codec), device, tables)
    from astro_cli.models.wan_backbone import WanBackbone  # with diffusers, which the embedded world does without
    from astro_cli.rewards.wan import load_rewards

    return load_rewards(keys, WanBackbone.fps, device, tables)

"""What a training recipe needs on this machine, all in one list, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from astro_cli.config.toml import list_recipes
from astro_cli.models import features
from astro_cli.recipe import objective_class, resolve_kind
from astro_cli.rewards import scorer_places
from astro_cli.rewards.scorers import scorers, split
from astro_cli.spec import ADAPTER_ROLES, Recipe, StageSpec
from astro_cli.zoo import needs
from astro_cli.zoo.needs import NeededPart


def check_needs(recipe: Recipe, roles: Iterable[str]) -> None:
    """Refuse a recipe whose weights, folder, prompts, scorers or features are missing, with how to bring each; in the
    embedded world only features of frames can be.

    Args:
        roles: all that its objectives train or need.

    Raises:
        CheckpointError: something is missing.
    """
    parts = list(_needs(recipe, roles)) if recipe.backbone == "wan" else []
    for name in recipe.order:
        parts += features.needs(features_of(recipe.stages[name]))
        parts += objective_class(recipe.stages[name]).weight_files(recipe)
    needs.refuse_missing(recipe.name, parts, _way_out(recipe))


def rewards_of(stage: StageSpec) -> list[str]:
    """Rewards that a stage scores: of its experience, of its pairs, and those that its objective scores itself."""
    config = resolve_kind("objectives", stage.objective, "objective")
    collected = list(stage.experience.scored if stage.experience is not None else ())
    collected += stage.pairs.scored if stage.pairs is not None else []
    return [*collected, *objective_class(stage).rewards(config)]


def rolled(stage: StageSpec) -> int | None:
    """Latent frames of the videos that a stage's objective rolls out itself; None: `video.frames`."""
    config = resolve_kind("objectives", stage.objective, "objective")
    return objective_class(stage).rolled(config)


def scorer_tables(stage: StageSpec) -> dict[str, dict[str, Any]]:
    """Own keys of the evaluation's scorers that a stage takes as rewards."""
    tables = dict[str, dict[str, Any]]()
    for spec in (stage.experience, stage.pairs):
        tables |= spec.scorers if spec is not None else {}
    return tables


def features_of(stage: StageSpec) -> list[str]:
    """Features of frames that a stage's objective looks through."""
    config = resolve_kind("objectives", stage.objective, "objective")
    return list(objective_class(stage).features(config))


def _needs(recipe: Recipe, roles: Iterable[str]) -> Iterable[NeededPart]:
    for role in roles:
        if role not in ADAPTER_ROLES and (source := recipe.base.of(role)) is not None:
            yield needs.weights(role, source)
    yield needs.wan_folder(recipe.base.codec)
    for name in recipe.order:
        stage = recipe.stages[name]
        if stage.data.prompts is not None:
            yield needs.prompts(f"stages.{name}.data.prompts", stage.data.prompts)
        if stage.data.clips is not None:
            yield needs.clips(f"stages.{name}.data.clips", stage.data.clips)
        if stage.data.pairs is not None:
            yield needs.pairs(f"stages.{name}.data.pairs", stage.data.pairs)
        own, outside = split(rewards_of(stage))
        yield from scorer_places.needs(own)
        tables = scorer_tables(stage)
        yield from scorers().needs(outside, tables) if outside else ()


def _way_out(recipe: Recipe) -> str:
    """The same method without weights, where there is one."""
    small = f"{recipe.name}_shapes"
    if small in {path.stem for path in list_recipes()}:
        return f"without any weights, in the embedded world: astro {recipe.command} --recipe {small}"
    return "recipes of the embedded world need no weights: astro recipe list; --dry-run checks this one without them"

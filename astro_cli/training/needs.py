"""What a training recipe needs on this machine, all in one list, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from astro_cli.config.toml import list_recipes
from astro_cli.rewards import scorer_places
from astro_cli.spec import ADAPTER_ROLES, Recipe
from astro_cli.zoo import needs
from astro_cli.zoo.needs import NeededPart


def check_needs(recipe: Recipe, roles: Iterable[str]) -> None:
    """Refuse a recipe on Wan whose weights, folder, prompts or scorers are missing, with how to bring each.

    Args:
        roles: all that its objectives train or need.

    Raises:
        CheckpointError: something is missing.
    """
    if recipe.backbone != "wan":
        return
    needs.refuse_missing(recipe.name, list(_needs(recipe, roles)), _way_out(recipe))


def _needs(recipe: Recipe, roles: Iterable[str]) -> Iterable[NeededPart]:
    for role in roles:
        if role not in ADAPTER_ROLES and (source := recipe.base.of(role)) is not None:
            yield needs.weights(role, source)
    yield needs.wan_folder(recipe.base.codec)
    for name in recipe.order:
        stage = recipe.stages[name]
        if stage.data.prompts is not None:
            yield needs.prompts(f"stages.{name}.data.prompts", stage.data.prompts)
        if stage.experience is not None:
            yield from scorer_places.needs(stage.experience.scored)


def _way_out(recipe: Recipe) -> str:
    """The same method without weights, where there is one."""
    small = f"{recipe.name}_shapes"
    if small in {path.stem for path in list_recipes()}:
        return f"without any weights, in the embedded world: astro {recipe.command} --recipe {small}"
    return "recipes of the embedded world need no weights: astro recipe list; --dry-run checks this one without them"

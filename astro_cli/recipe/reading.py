"""Reading recipes: TOML -> a checked `Recipe`, with or without the methods that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from pydantic import ValidationError

from astro_cli.config import toml
from astro_cli.config.base import validate
from astro_cli.config.errors import RecipeError
from astro_cli.recipe.checks import check_methods, check_names
from astro_cli.recipe.kinds import first_problem
from astro_cli.spec import Command, Recipe


def load_recipe(name: str, overrides: list[str] | None = None, command: str | None = None) -> Recipe:
    """Read, merge and check a recipe, with the methods that it names.

    Args:
        command: the command it is for; a recipe of another command is refused.

    Raises:
        RecipeError: with the file that set the offending key, what was found and what is allowed.
    """
    return _load(name, overrides, command, (check_names, check_methods))


def read_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """Read, merge and check a recipe without importing a method: the keys inside of objectives and advantages are taken
    as they come.

    Raises:
        RecipeError: as `load_recipe`.
    """
    return _load(name, overrides, None, (check_names,))


def _load(
    name: str, overrides: list[str] | None, command: str | None, checks: tuple[Callable[[Recipe], None], ...]
) -> Recipe:
    document = toml.load(name, overrides)
    others = f"astro recipe show {name} --origins  prints the values it has to fit, and the file that sets each"
    named = document.data.get("command")
    if command is not None and named in get_args(Command) and named != command:
        what = f"found {named!r}, this is `astro {command}`"
        raise RecipeError(
            document.origin("command"), "command", what, hint=f"run it with `astro {named} --recipe {name}`"
        )
    try:
        recipe = validate(Recipe, document.data)
        for check in checks:
            check(recipe)
    except ValidationError as error:
        key, what, hint = first_problem(error, Recipe)
        raise RecipeError(document.origin(key), key, what, hint=hint or others) from error
    except ValueError as error:
        key, _, what = str(error).partition(": ")
        raise RecipeError(document.origin(key), key, what, hint=others) from error
    return recipe

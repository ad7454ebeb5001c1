"""`astro recipe`: lists, shows, checks and compares recipes. `list` and `show` import no torch."""

from __future__ import annotations

import json
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from astro_cli.commands.console import echo, echo_aligned, loading
from astro_cli.commands.training_run import SetOption
from astro_cli.config import toml, toml_text
from astro_cli.config.errors import EXIT_USAGE, AstroError, RecipeError
from astro_cli.config.files import Reader

DEFAULT_ORIGIN = "default"  # no file sets the key
ABSENT = "-"
COLUMNS = ("name", "command", "backbone", "paper", "description")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Recipe file, or its bare name in recipes/.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]

recipe_app = typer.Typer(
    name="recipe", no_args_is_help=True, help="List, show, check and compare recipes.\n\nExample: astro recipe list"
)


@recipe_app.command("list")
def list_(json_: JsonOption = False) -> None:
    """List the recipes that come with astro.

    Example: astro recipe list
    """
    rows = [summary(path) for path in toml.list_recipes()]
    if json_:
        echo(json.dumps(rows, indent=2))
        return
    of_row = itemgetter(*COLUMNS)
    echo_aligned([list(of_row(row)) for row in rows])


def summary(path: Path) -> dict[str, str]:
    """What a list says of a recipe; values come from what it extends too, the description is its first comment line."""
    data = toml.load(str(path)).data
    row = {key: str(data.get(key, "")) for key in ("command", "backbone", "paper")}
    first = Reader(RecipeError).text(path).partition("\n")[0]
    description = first.removeprefix("#").strip() if first.startswith("#") else ""
    return {"name": str(data.get("name", path.stem)), **row, "description": description, "file": shown_path(str(path))}


def shown_path(origin: str) -> str:
    """A recipe's path from `recipes/` on; other files and "--set ..." as they are."""
    root = toml.recipes_dir()
    path = Path(origin)
    return f"recipes/{path.relative_to(root).as_posix()}" if path.is_relative_to(root) else origin


@recipe_app.command()
def show(
    name: NameArgument,
    set_: SetOption = None,
    origins: Annotated[bool, typer.Option("--origins", help="Say behind each key which file set it.")] = False,
    json_: JsonOption = False,
) -> None:
    """Print a recipe with all it extends and all defaults filled in, as TOML; `astro recipe check` also asks its
    methods.

    Example: astro recipe show astrolabe_causal_shapes --origins
    """
    from astro_cli.recipe import read_recipe

    data = read_recipe(name, set_).model_dump(mode="json", exclude_none=True)
    comments = key_origins(data, toml.load(name, set_)) if origins else {}
    if json_:
        echo(json.dumps({"recipe": data, "origins": comments} if origins else data, indent=2))
        return
    echo(toml_text.dumps(data, comments), nl=False)


def key_origins(data: dict[str, Any], document: toml.Document) -> dict[str, str]:
    """Per dotted key: the file or `--set` that gave its value, or "default"."""
    given = toml_text.flatten(document.data)
    return {
        key: shown_path(document.origin(key)) if key in given else DEFAULT_ORIGIN for key in toml_text.flatten(data)
    }


@recipe_app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Recipe files, or bare names in recipes/.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Check every recipe that comes with astro.")] = False,
) -> None:
    """Check recipes without loading a weight; exit code 2 if one is wrong.

    Example: astro recipe check --all
    """
    wanted = [*(names or []), *(str(path) for path in toml.list_recipes() if all_)]
    if not wanted:
        raise RecipeError(
            "astro recipe check", "NAME", "found none", hint="name recipes, or check all that come with astro: --all"
        )
    wrong = [name for name in wanted if not passes(name)]
    if wrong:
        raise typer.Exit(EXIT_USAGE)


def passes(name: str) -> bool:
    """Check one recipe: "ok" on stdout, or its error on stderr."""
    try:
        with loading(name):
            from astro_cli.recipe import load_recipe

            load_recipe(name)
    except AstroError as error:
        echo(error, err=True)
        return False
    echo(f"ok  {shown_path(name)}")
    return True


@recipe_app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    json_: JsonOption = False,
) -> None:
    """Print the keys in which two recipes differ, defaults filled in; names are not compared.

    Example: astro recipe diff astrolabe_causal astrolabe_causal_shapes
    """
    with loading(f"{a} and {b}"):
        from astro_cli.recipe import load_recipe

        values = [load_recipe(name).model_dump(mode="json", exclude_none=True) for name in (a, b)]
    changes = toml_text.differences(*values)
    if json_:
        echo(json.dumps(changes, indent=2))
        return
    if not changes:
        echo("no differences", err=True)
        return
    echo_aligned([["key", a, b], *([change["key"], _side(change, "a"), _side(change, "b")] for change in changes)])


def _side(change: dict[str, Any], side: str) -> str:
    return toml_text.value_text(change[side]) if side in change else ABSENT

"""`astro recipe`: lists, shows, checks and compares recipes. `list` and `show` import no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from astro_cli.commands.console import echo
from astro_cli.commands.training_run import SetOption
from astro_cli.config import toml
from astro_cli.config.errors import EXIT_USAGE, AstroError, RecipeError
from astro_cli.config.files import Reader

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
DEFAULT_ORIGIN = "default"  # no file sets the key
ABSENT = "-"
COLUMNS = ("name", "command", "backbone", "paper", "description")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Recipe file, or its bare name in recipes/.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]

recipe_app = typer.Typer(name="recipe", no_args_is_help=True, help="List, show, check and compare recipes.")


@recipe_app.command("list")
def list_(json_: JsonOption = False) -> None:
    """List the recipes that come with astro.

    Example: astro recipe list
    """
    rows = [summary(path) for path in toml.list_recipes()]
    if json_:
        echo(json.dumps(rows, indent=2))
        return
    echo_aligned([[row[column] for column in COLUMNS] for row in rows])


def echo_aligned(rows: list[list[str]]) -> None:
    """Rows in columns; never cut or wrapped, so that each row stays one line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


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
    echo(dumps(data, comments), nl=False)


def key_origins(data: dict[str, Any], document: toml.Document) -> dict[str, str]:
    """Per dotted key: the file or `--set` that gave its value, or "default"."""
    given = flatten(document.data)
    return {key: shown_path(document.origin(key)) if key in given else DEFAULT_ORIGIN for key in flatten(data)}


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; an array, or an empty table, is one value."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        dotted = f"{prefix}{key}"
        flat.update(flatten(value, f"{dotted}.") if isinstance(value, dict) and value else {dotted: value})
    return flat


def dumps(data: dict[str, Any], comments: dict[str, str], path: tuple[str, ...] = ()) -> str:
    """A table as TOML: its values first, then its sub-tables; `comments` by dotted key."""
    lines, tables = [], []
    for key, value in data.items():
        if isinstance(value, dict):
            tables.append(dumps(value, comments, (*path, key)))
        else:
            dotted = ".".join((*path, key))
            comment = f"  # {comments[dotted]}" if dotted in comments else ""
            lines.append(f"{toml_key(key)} = {toml_value(value)}{comment}\n")
    header = f"\n[{'.'.join(map(toml_key, path))}]\n" if path and (lines or not tables) else ""
    return header + "".join(lines) + "".join(tables)


def toml_key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else toml_value(key)


def toml_value(value: Any) -> str:
    """A value on one line; strings and numbers read the same in JSON and TOML, but for DEL."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
    from astro_cli.recipe import load_recipe

    try:
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
    from astro_cli.recipe import load_recipe

    changes = differences(*(load_recipe(name).model_dump(mode="json", exclude_none=True) for name in (a, b)))
    if json_:
        echo(json.dumps(changes, indent=2))
        return
    if not changes:
        echo("no differences", err=True)
        return
    rows = [
        [change["key"], *(toml_value(change[side]) if side in change else ABSENT for side in ("a", "b"))]
        for change in changes
    ]
    echo_aligned([["key", a, b], *rows])


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """Differing keys in A's order, then those of B alone: {"key", "a", "b"}; a side without the key is left out."""
    left, right = ({key: value for key, value in flatten(side).items() if key != "name"} for side in (a, b))
    keys = [key for key in {**left, **right} if key not in left or key not in right or left[key] != right[key]]
    return [
        {"key": key} | {side: flat[key] for side, flat in (("a", left), ("b", right)) if key in flat} for key in keys
    ]

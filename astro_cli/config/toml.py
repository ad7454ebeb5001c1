"""Reading TOML recipes: `extends`, `--set a.b=value`, and where each key came from.

A file's tables merge into those it extends, key by key. A table given by `--set` replaces the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from astro_cli.config.errors import RecipeError, did_you_mean
from astro_cli.config.files import Reader
from astro_cli.config.parsing import DEPTH, ParseError, RefusedValue, parse_toml

MOST_SUGGESTED = 3
Table = dict[str, Any]
SHOWN_CHARACTERS = 80  # of a wrong `--set`


@dataclass
class Document:
    """A merged recipe and, per dotted key, the file (or "--set") that gave its value."""

    path: str
    data: Table
    origins: dict[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """The file that set a key, or the nearest table above it."""
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins.get(key, self.path)


def recipes_dir() -> Path:
    """The packaged `recipes/` folder; in a source checkout the one beside the packages."""
    checkout = Path(__file__).resolve().parents[2] / "recipes"
    return checkout if checkout.is_dir() else Path(str(resources.files("astro_cli") / "_recipes"))


def list_recipes() -> list[Path]:
    return sorted(path for path in recipes_dir().rglob("*.toml") if path.parent.name != "base")


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """Resolve a recipe: the path as given, beside the recipe that extends it, then `recipes/` and its sub-folders.

    Raises:
        RecipeError: no such recipe, with the nearest name.
    """
    wanted = Path(name if name.endswith(".toml") else f"{name}.toml")
    root = recipes_dir()
    for candidate in ([beside / wanted] if beside else []) + [wanted, root / wanted]:
        if candidate.is_file():
            return candidate
    matches = [path for path in sorted(root.rglob("*.toml")) if path.parts[-len(wanted.parts) :] == wanted.parts]
    if matches:
        return matches[0]
    names = [path.name for path in list_recipes()]
    longer = [repr(each) for each in names if each.startswith(f"{wanted.stem}_")][:MOST_SUGGESTED]
    near = f"did you mean {' or '.join(longer)}?" if longer else did_you_mean(wanted.name, names)
    raise RecipeError(name, "", "no such recipe", hint=f"{near}; `astro recipe list` shows all")


def load(name: str, overrides: list[str] | None = None) -> Document:
    """Read a recipe, merge it over what it extends, apply overrides."""
    document = _load_file(find_recipe(name), seen=())
    for override in overrides or []:
        key, value = parse_override(override)
        _merge(document.data, _nest(key, value), document.origins, f"--set {override}", "", whole=key)
    return document


def _load_file(path: Path, seen: tuple[Path, ...]) -> Document:
    if path.resolve() in seen:
        raise RecipeError(path, "extends", "the recipe extends itself", hint=" -> ".join(p.name for p in (*seen, path)))
    if len(seen) > DEPTH:
        raise RecipeError(path, "extends", f"the {len(seen)}th recipe in a row, expected at most {DEPTH}")
    data = Reader(RecipeError).toml(path)
    parent = data.pop("extends", None)
    if parent is None:
        document = Document(str(path), {})
    elif not isinstance(parent, str):
        raise RecipeError(path, "extends", f"found {parent!r}, expected the name of one recipe")
    else:
        document = _load_file(_find_parent(path, parent), (*seen, path.resolve()))
        document.path = str(path)
    _merge(document.data, data, document.origins, str(path), "")
    return document


def _find_parent(path: Path, parent: str) -> Path:
    try:
        return find_recipe(parent, beside=path.parent)
    except RecipeError as error:
        raise RecipeError(path, "extends", f"found {parent!r}, no such recipe", hint=error.hint) from error


def _merge(target: Table, source: Table, origins: dict[str, str], origin: str, prefix: str, whole: str = "") -> None:
    """Tables merge key by key; everything else, arrays and the table at the dotted key `whole` included, is
    replaced.
    """
    for key, value in source.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and dotted != whole and isinstance(target.get(key), dict):
            _merge(target[key], value, origins, origin, f"{dotted}.", whole)
        else:
            for known in [name for name in origins if name.startswith(f"{dotted}.")]:
                del origins[known]
            target[key] = value
            origins[dotted] = origin


def _nest(key: str, value: Any) -> Table:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def parse_override(text: str, example: str = "--set seed=1 --set stages.dmd.steps=20") -> tuple[str, Any]:
    """`a.b=value`; the value is TOML, or a bare string when it is none.

    Args:
        example: what the hint shows where there is no `=`.

    Raises:
        RecipeError: not KEY=VALUE.
    """
    key, sep, value = text.partition("=")
    parts = key.split(".")
    if not sep or not all(part.strip() for part in parts) or len(parts) > DEPTH:
        raise RecipeError("--set", text, "expected KEY=VALUE", hint=f"for example: {example}")
    try:
        parsed = parse_toml(f"value = {value.strip()}")["value"]
    except RefusedValue as error:
        raise RecipeError(
            f"--set {text[:SHOWN_CHARACTERS]}", key.strip(), error.what, hint=f"for example: {example}"
        ) from error
    except ParseError:
        parsed = value.strip()
    return key.strip(), parsed

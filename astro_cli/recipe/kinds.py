"""The methods a recipe names: which there are, and their tables checked against their `Config`."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from astro_cli.config.base import Config, validate
from astro_cli.config.errors import did_you_mean
from astro_cli.config.problems import fields_at
from astro_cli.spec import StageSpec

EXPECTED = {
    "model_type": "a table",
    "dict_type": "a table",
    "tuple_type": "an array",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "int_from_float": "an integer",
    "too_short": "at least one value",
}


def kinds(package: str) -> list[str]:
    """Keys available in `objectives` or `advantages`: the modules' stems."""
    module = importlib.import_module(f"astro_cli.{package}")
    return sorted(info.name for info in pkgutil.iter_modules(module.__path__) if info.name != "base")


def resolve_kind(package: str, table: dict[str, Any], key: str) -> Config:
    """Check a table `{kind = ..., ...}` against the `Config` of the module its kind names.

    Raises:
        ValueError: "key: what is wrong", for unknown kinds, keys and values.
    """
    check_kind(package, table, key)
    config_class = _module(package, table["kind"]).Config
    try:
        return validate(config_class, {name: value for name, value in table.items() if name != "kind"})
    except ValidationError as error:
        inner, what, hint = first_problem(error, config_class)
        raise ValueError(f"{key}.{inner}: {what}" + (f", {hint}" if hint else "")) from error


def objective_class(stage: StageSpec) -> Any:
    """The `Objective` class of a stage's kind."""
    return _module("objectives", stage.kind).Objective


def _module(package: str, kind: str) -> ModuleType:
    """Of a method: the file whose stem is the kind."""
    return importlib.import_module(f"astro_cli.{package}.{kind}")


def advantage_class(table: dict[str, Any]) -> Any:
    """The `Advantage` class that an experience's table names."""
    return _module("advantages", table["kind"]).Advantage


def check_kind(package: str, table: dict[str, Any], key: str) -> None:
    kind = table.get("kind")
    if kind not in kinds(package):
        raise ValueError(f"{key}.kind: found {kind!r}, {did_you_mean(str(kind), kinds(package))}")


def first_problem(error: ValidationError, model: type[Config]) -> tuple[str, str, str]:
    """(dotted key, what, hint) of a validation error, in the user's words. Unknown keys first: they explain missing
    ones.
    """
    problem = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = fields_at(model, [str(part) for part in problem["loc"][:-1]])
        return key, "unknown key", did_you_mean(str(problem["loc"][-1]), allowed)
    if problem["type"] == "missing":
        return key, "missing", "add it, or extend a base recipe that has it"
    if problem["type"] == "value_error":
        inner, _, what = str(problem.get("ctx", {})["error"]).partition(": ")
        return (f"{key}.{inner}" if key else inner), what, ""
    expected = EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Input should be ").split(", unable")[0]
    return key, f"found {problem['input']!r}, expected {expected}", ""

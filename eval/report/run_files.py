"""The files of a training run that a report reads, checked: resolved recipe, environment and logged rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from astro_cli.config.base import validate
from astro_cli.config.errors import RecordError
from astro_cli.config.files import Reader
from astro_cli.config.problems import first_problem
from astro_cli.spec.parts import StageName
from eval.records.store import Backbone
from eval.report.figures import read_metrics

RESTORE = "restore the file, or train the run again"


class _Facts(BaseModel):
    """What a report reads of a file that says more."""

    model_config = ConfigDict(extra="ignore")


class _Stage(_Facts):
    steps: int = Field(ge=0)


class _Recipe(_Facts):
    name: str
    seed: int
    backbone: str
    order: list[str]
    stages: dict[StageName, _Stage]


class _Resolved(_Facts):
    hash: str
    recipe: _Recipe


class _Environment(_Facts):
    commit: str | None
    dirty: bool | None
    device: str = "unknown"
    versions: dict[str, str | None] = {}


class _Card(_Facts):
    recipe: str
    recipe_hash: str
    seed: int
    backbone: Backbone


def read_resolved(run: Path) -> dict[str, Any]:
    """`resolved.json`: "hash" and "recipe".

    Raises:
        RecordError: missing, damaged, or a stage in its order that it does not describe.
    """
    path = run / "resolved.json"
    data = _checked(path, _Resolved)
    lost = [name for name in data["recipe"]["order"] if name not in data["recipe"]["stages"]]
    if lost:
        raise RecordError(path, "recipe.order", f"found {lost[0]!r}, no stage of this recipe", hint=RESTORE)
    return data


def read_environment(run: Path) -> dict[str, Any]:
    """`environment.json`. Raises: RecordError: missing or damaged."""
    return _checked(run / "environment.json", _Environment)


def read_card(weights: Path) -> dict[str, Any]:
    """The card beside the weights a run ended with. Raises: RecordError: missing or damaged."""
    return _checked(weights.with_suffix(".json"), _Card)


def read_rows(run: Path, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, each of a stage and a step that the recipe has.

    Raises:
        RecordError: missing, damaged, or the rows of another recipe.
    """
    path = run / "metrics.jsonl"
    rows = read_metrics(path)
    for number, row in enumerate(rows, 1):
        stage, step = row.get("stage"), row.get("step")
        if not isinstance(stage, str) or stage not in recipe["stages"]:
            known = ", ".join(recipe["stages"])
            raise RecordError(path, f"line {number}", f"stage: found {str(stage)[:40]!r}, the recipe has {known}")
        steps = recipe["stages"][stage]["steps"]
        if type(step) is not int or not 0 <= step < steps:
            what = f"step: found {str(step)[:40]!r}, expected a whole number from 0 to {steps - 1}"
            raise RecordError(path, f"line {number}", what, hint=RESTORE)
    return rows


def _checked(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    data = Reader(RecordError, hint=RESTORE).table(path)
    try:
        return validate(model, data).model_dump() | data
    except ValidationError as error:
        wrong = first_problem(error, model)
        raise RecordError(path, wrong.key, f"found {wrong.shown}: {wrong.what}", hint=RESTORE) from error

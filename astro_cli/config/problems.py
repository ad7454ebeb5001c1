"""What a pydantic ValidationError says, in the words of an error for users. Raises nothing."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from astro_cli.config.errors import did_you_mean

FOUND_CHARACTERS = 80  # of a wrong value: enough to recognise it
# Where pydantic's own sentence speaks of classes and inputs.
SENTENCES = {
    "extra_forbidden": "unknown key",
    "missing": "missing",
    "model_type": "expected an object",
    "dict_type": "expected an object",
}


class Problem(NamedTuple):
    """The first thing that is wrong.

    Attributes:
        key: dotted, "" where it is about the whole.
        what: our sentence from `SENTENCES`, else pydantic's.
        kind: pydantic's name of it, e.g. "missing", "extra_forbidden".
        value: what was found.
        hint: of an unknown key, the nearest known one or all of them; "" for none.
    """

    key: str
    what: str
    kind: str
    value: Any
    hint: str = ""

    @property
    def shown(self) -> str:
        """The value as Python writes it, cut."""
        return repr(self.value)[:FOUND_CHARACTERS]

    @property
    def text(self) -> str:
        """Key and sentence."""
        return f"{self.key}: {self.what}" if self.key else self.what


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> Problem:
    """An unknown key, which explains a missing one, before all others.

    Args:
        model: the class that was asked for; its keys are the hint of an unknown one.

    Source: pydantic 2, ValidationError.errors.
    """
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    kind, place = first["type"], [str(part) for part in first["loc"]]
    known = fields_at(model, place[:-1]) if kind == "extra_forbidden" else []
    what = SENTENCES.get(kind) or first["msg"].removeprefix("Value error, ")
    return Problem(".".join(place), what, kind, first["input"], did_you_mean(place[-1], known) if known else "")


def fields_at(model: Any, path: list[str]) -> list[str]:
    """Field names of the configuration class at a path of keys; none where there is no such class."""
    for part in path:
        if (
            model is not None and part in model.model_fields
        ):  # else the key of a dict of configurations, such as a stage's name, or a list's index
            model = next(iter(_classes(model.model_fields[part].annotation)), None)
    return [] if model is None else list(model.model_fields)


def _classes(annotation: Any) -> list[Any]:
    """Configuration classes mentioned in an annotation, e.g. dict[str, StageSpec] or LoraSpec | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _classes(inner)]

"""Reads a packaged TOML file into its class and reports what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from astro_cli.config.errors import RecordError
from astro_cli.config.parsing import ParseError, parse_toml
from astro_cli.config.problems import first_problem

M = TypeVar("M", bound=BaseModel)


def parse(
    model: type[M],
    text: str,
    where: str,
    *,
    number: Callable[[str], Any] = float,
    prepare: Callable[[dict[str, Any]], None] | None = None,
) -> M:
    """An instance of `model` from TOML text.

    Args:
        where: names the file in errors.
        number: what a decimal becomes.
        prepare: fills in fields before they are checked.

    Raises:
        RecordError: no TOML, or a field that is wrong, with its key.
    """
    try:
        fields = parse_toml(text, number=number)
        if prepare is not None:
            prepare(fields)
        return model.model_validate(fields)
    except ParseError as error:
        raise RecordError(where, error.key, error.what) from error
    except ValidationError as error:
        wrong = first_problem(error, model)
        raise RecordError(where, wrong.key, wrong.what, hint=wrong.hint) from error

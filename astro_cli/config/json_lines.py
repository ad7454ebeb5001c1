"""Reads files of JSON lines, each of one configuration class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from astro_cli.config.base import Config, validate
from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader
from astro_cli.config.parsing import ParseError, parse_json
from astro_cli.config.problems import first_problem

Line = TypeVar("Line", bound=Config)


def json_lines(
    path: Path, line_class: type[Line], error: type[AstroError], *, key: str, example: str
) -> Iterator[tuple[int, Line]]:
    """The lines of a file that are not empty, with their numbers from 1.

    Args:
        key: what an error names where the file cannot be read.
        example: a right line, for hints.

    Raises:
        AstroError: of class `error`, an unreadable file, or a line that is no JSON or not of the class.
    """
    for number, text in enumerate(Reader(error, key=key).text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = validate(line_class, parse_json(text))
        except ValidationError as wrong:
            problem = first_problem(wrong, line_class)
            hint = problem.hint or f"expected {example}"
            raise error(path, f"line {number}", problem.text, hint=hint) from wrong
        except ParseError as wrong:
            raise error(path, f"line {number}", str(wrong), hint=f"expected {example}") from wrong
        yield number, line

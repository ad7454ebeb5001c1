"""Checks of values that Python callers pass, with the messages that commands have. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from astro_cli.config.errors import AstroError

SHOWN = 80  # characters of a wrong value


def whole(error: type[AstroError], function: str, key: str, value: Any, least: int, most: int) -> int:
    """A whole number from `least` to `most`; NumPy's are whole numbers too, booleans are not.

    Raises:
        AstroError: of class `error`, anything else.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most:
        return int(value)
    raise error(function, key, f"found {shown(value)}, expected a whole number from {least} to {most}")


def positive(error: type[AstroError], function: str, key: str, value: Any, most: float) -> float:
    """A number above 0, up to `most`.

    Raises:
        AstroError: of class `error`, anything else, NaN included.
    """
    number: Any = value
    if isinstance(value, Real) and not isinstance(value, bool) and 0 < number <= most:
        return float(value)
    raise error(function, key, f"found {shown(value)}, expected a number above 0, at most {most:,}")


def one_of(error: type[AstroError], function: str, key: str, value: Any, allowed: Iterable[str]) -> str:
    """One of a few names.

    Raises:
        AstroError: of class `error`, anything else, with the names.
    """
    names = list(allowed)
    if value in names:
        return value
    raise error(function, key, f"found {shown(value)}, allowed: {', '.join(names)}")


def shown(value: Any) -> str:
    """The value as Python writes it, cut."""
    return repr(value)[:SHOWN]

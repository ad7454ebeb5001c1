"""JSON and TOML text -> values that the rest of the program can hold, compare, print and write again.

Refused are values that are legal in a file and break what comes after: deep nesting, integers beyond 64 bits, numbers
that are not finite, and strings that are no Unicode text.
"""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

DEPTH = 64  # levels of tables and lists; released configurations have fewer than ten
BITS = 64  # of an integer: what torch and every file format here hold
ALLOWED = f"expected at most {BITS} bits"
SHOWN_CHARACTERS = 20  # of a string that is no text

Place = tuple[Any, Any] | None  # (place of the table or list around it, key or index)


class ParseError(ValueError):
    """Text that is no JSON or TOML.

    Attributes:
        key: dotted, of the value; "" where it is about the text.
        what: what is wrong.
    """

    def __init__(self, key: str, what: str) -> None:
        self.key, self.what = key, what
        super().__init__(f"{key}: {what}" if key else what)


class RefusedValue(ParseError):
    """A value that is legal where it stands and refused here."""


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        finite: whether NaN and infinite numbers are refused.

    Raises:
        ParseError: not UTF-8, not JSON, or a value that is refused.
    """
    try:
        value = json.loads(decoded(text))
    except RecursionError as error:
        raise _too_deep() from error
    except ParseError:
        raise
    except ValueError as error:
        raise _unparsed("not JSON", error) from error
    _check(value, finite)
    return value


def parse_toml(text: str | bytes, *, number: Callable[[str], Any] = float) -> dict[str, Any]:
    """The table of a TOML text.

    Args:
        number: what a decimal becomes.

    Raises:
        ParseError: not UTF-8, not TOML, or a value that is refused.
    """
    try:
        table = tomllib.loads(decoded(text), parse_float=number)
    except RecursionError as error:
        raise _too_deep() from error
    except ParseError:
        raise
    except ValueError as error:
        raise _unparsed("not valid TOML", error) from error
    _check(table, finite=True)
    return table


def decoded(text: str | bytes) -> str:
    """UTF-8 bytes as text, without a byte order mark.

    Raises:
        ParseError: not UTF-8, or with zeros in it, which no text has.
    """
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    if (zero := text.find(0)) >= 0:
        raise ParseError("", f"cannot be read as text: a zero at position {zero}")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParseError(
            "", f"cannot be read as UTF-8 text: byte {text[error.start]:#04x} at position {error.start}"
        ) from error


def _unparsed(what: str, error: ValueError) -> ParseError:
    """In the parser's own words, but for integers of thousands of digits: there Python speaks of its settings."""
    if str(error).startswith("Exceeds the limit"):
        return RefusedValue("", f"found an integer of more than {sys.get_int_max_str_digits()} digits, {ALLOWED}")
    return ParseError("", f"{what}: {error}")


def _too_deep() -> RefusedValue:
    return RefusedValue("", f"nested too deeply, expected at most {DEPTH} levels")


def _check(value: Any, finite: bool) -> None:
    """Walk through all values without recursion."""
    waiting: list[tuple[Any, Place, int]] = [([value], None, 0)]
    while waiting:
        around, place, depth = waiting.pop()
        if depth > DEPTH:
            raise _too_deep()
        for key, item in _items(around):
            if type(key) is str and not is_text(key):
                raise RefusedValue(_dotted(place), f"found the key {key!r}, expected Unicode text")
            if type(item) in (dict, list):
                waiting.append((item, (place, key), depth + 1))
            elif what := _fault(item, finite):
                raise RefusedValue(_dotted((place, key)), what)


def _items(around: Any) -> Iterator[tuple[Any, Any]]:
    return iter(around.items() if isinstance(around, dict) else enumerate(around))


def _fault(item: Any, finite: bool) -> str:
    """What is wrong with a value that holds no others; "" for nothing."""
    if type(item) is int and item.bit_length() > BITS:
        return f"found an integer of {item.bit_length()} bits, {ALLOWED}"
    if type(item) is float and finite and not math.isfinite(item):
        return f"found {item}, expected a finite number"
    if type(item) is str and not is_text(item):
        return f"found {item[:SHOWN_CHARACTERS]!r}, expected Unicode text"
    return ""


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair (`\\ud800`) cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dotted(place: Place) -> str:
    """The place as `a.b[3].c`."""
    keys: list[Any] = []
    while place is not None:
        place, key = place
        keys.append(key)
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in reversed(keys[:-1])]  # the last: the whole
    return "".join(parts).removeprefix(".")

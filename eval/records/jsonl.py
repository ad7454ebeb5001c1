"""Append-only files of JSON lines that survive a killed process and two writers at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from filelock import lock_descriptor
from pydantic import AfterValidator

from astro_cli.config.durable import sync
from astro_cli.config.errors import OutputError, RecordError
from astro_cli.config.files import Reader, check_regular
from astro_cli.config.parsing import ParseError, parse_json

TAIL = (
    2**16
)  # bytes read from the end at a time, until the last line is whole: a long file is not read for every line added


LARGEST = 1e30  # of a score: the statistics take fourth powers


def _bounded(score: float | None) -> float | None:
    """A number that is not finite passes: whoever writes it says where it is from."""
    if score is not None and LARGEST < abs(score) < float("inf"):
        raise ValueError(f"found {score}, expected at most {LARGEST:g}")
    return score


Score = Annotated[float | None, AfterValidator(_bounded)]  # None: the metric does not apply


def encode(data: Any) -> bytes:
    """One line.

    Raises:
        TypeError: no JSON value.
        ValueError: a number that is not finite.
    """
    return json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def append(path: Path, lines: Sequence[bytes], what: str = "record") -> None:
    """Add encoded lines and return once they are on the disk. A last line without its end, which a killed process left,
    is removed first, or ended where it is whole; a damaged line that has its end stays.

    Raises:
        OutputError: the disk is full, or the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        if not is_new:
            check_regular(path, OutputError)
        with open(path, "a+b") as file:
            lock_descriptor(file.fileno())  # two evaluations may write to one store; closing the file gives it back
            _mend_tail(file)
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync(path.parent)  # its name too
    except OSError as error:
        raise OutputError(path, "", f"the {what} cannot be written: {error.strerror or error}") from error


def read(path: Path) -> Iterator[tuple[int, Any]]:
    """Line number and JSON value of every line. A last line that has no end and is no JSON is skipped: its writer was
    killed.

    Raises:
        RecordError: the file cannot be read, or another line is damaged.
    """
    lines = Reader(RecordError).content(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = parse_json(line)
        except ParseError as error:
            if number == len(lines):  # what follows the last newline
                return
            hint = "remove the line, or restore the file from a copy; the other lines stay usable"
            raise RecordError(path, f"line {number}", f"damaged record: {error}", hint=hint) from error
        yield number, fields


def _mend_tail(file: BinaryIO) -> None:
    """Make the file end after a line, so that the next record does not continue a torn one."""
    size, last = file.seek(0, os.SEEK_END), b""
    start = size
    while start > 0 and b"\n" not in last:
        start = max(0, start - TAIL)
        file.seek(start)
        last = file.read(size - start)
    cut = last.rfind(b"\n") + 1
    torn = last[cut:]
    if not torn:
        return
    try:
        parse_json(torn)
    except ParseError:
        file.truncate(start + cut)
    else:
        file.write(b"\n")

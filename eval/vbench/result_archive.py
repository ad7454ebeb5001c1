"""Finds VBench's result files: one with its `*_full_info.json` beside it, or the zip that its leaderboard takes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader, check_regular
from astro_cli.config.parsing import ParseError, parse_json

RESULTS, FULL_INFO = "_eval_results.json", "_full_info.json"  # ends of the names of the two files VBench writes
MOST_BYTES = 2**28  # of all files in a zip: the largest real ones have some 10 MB each
RESULTS_HINT = "expected VBench's *_eval_results.json, or a zip of them"
ZIP_HINT = "make the zip again; it holds *_eval_results.json as VBench writes them"


class IngestError(AstroError):
    """A result file that is not VBench's, or holds values that are no scores."""


@dataclass(frozen=True)
class ResultFile:
    """One file of results.

    Attributes:
        where: as errors name it; of a zip also the file in it.
        data: its JSON value.
        looked_at: VBench's list of what it looked at, by the name of its file; None where it is not there.
    """

    where: str
    data: Any
    looked_at: tuple[str, bytes] | None = None


def open_results(file: Path) -> list[ResultFile]:
    """The file itself, or those in a zip, by name.

    Raises:
        IngestError: unreadable, no JSON, or a zip without results.

    Source: VBench 0.1.5, scripts/cal_final_score.py, reads every .json in the zip and one folder down, but for names
        that start with a dot or two underscores; lists (`*_full_info.json`) are no results.
    **Deviations:** there a dimension of two files is the later one's; here it is refused.
    """
    reader = Reader(IngestError, hint=RESULTS_HINT)
    check_regular(file, IngestError, hint=RESULTS_HINT)
    if _is_zip(file):
        return list(_members(file))
    beside = _beside(file.name)
    info = file.with_name(beside) if beside else None
    listed = (str(info), reader.content(info)) if info is not None and info.exists() else None
    return [ResultFile(str(file), _json(str(file), reader.content(file)), listed)]


def _is_zip(file: Path) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile as error:  # it says that it is one of several
        raise IngestError(file, "", f"damaged zip: {error}", hint=ZIP_HINT) from error


def _beside(name: str) -> str:
    """The name of the list beside a file of results; "" for another name."""
    return name.removesuffix(RESULTS) + FULL_INFO if name.endswith(RESULTS) else ""


def _members(file: Path) -> Iterator[ResultFile]:
    has_results = False
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist() if _is_json(entry.filename)}
            _check_bytes(file, sum(entry.file_size for entry in entries.values()))
            for name in sorted(entries):
                where = f"{file}: {name}"
                data = _json(where, archive.read(entries[name]))
                if isinstance(data, list):
                    continue
                has_results = True
                path = PurePosixPath(name)
                info = entries.get(str(path.with_name(_beside(path.name)))) if _beside(path.name) else None
                listed = None
                if info is not None:
                    listed = (f"{file}: {info.filename}", archive.read(info))
                yield ResultFile(where, data, listed)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise IngestError(file, "", f"damaged zip: {error}", hint=ZIP_HINT) from error
    if not has_results:
        raise IngestError(file, "", "holds no file of results", hint=ZIP_HINT)


def _is_json(name: str) -> bool:
    return name.endswith(".json") and not any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)


def _check_bytes(file: Path, size: int) -> None:
    if size > MOST_BYTES:
        what = f"unpacks to {size:,} bytes, expected at most {MOST_BYTES:,}"
        raise IngestError(file, "", what, hint=ZIP_HINT)


def _json(where: str, content: bytes) -> Any:
    try:
        return parse_json(content, finite=False)
    except ParseError as error:
        raise IngestError(where, error.key, f"no JSON of scores: {error.what}", hint=RESULTS_HINT) from error

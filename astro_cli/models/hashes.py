"""sha256 of files, and a record of those already computed. Free of torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from astro_cli.config import durable
from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader, expanded, regular

PIECE = 2**24  # bytes hashed between two reports of progress
LARGE = 2**24  # bytes from which a file is remembered beyond this process: smaller ones are read again in milliseconds
# A file changed more recently might change again within one tick of the file system's clock.
SETTLED_NS = 2 * 10**9
DIGEST_CHARACTERS = 16
CACHE_VARIABLE, DEFAULT_CACHE, CACHE_FILE = "XDG_CACHE_HOME", "~/.cache", "astro/digests.json"

State = tuple[int, int, int]  # size in bytes, time of change in ns, inode
_seen: dict[tuple[str, State], str] = {}


def sha256(path: Path, report: Callable[[int], None] | None = None) -> str:
    """sha256 of a file's bytes, hex, read piece by piece; `report` hears how many bytes each piece had."""
    total = hashlib.sha256()
    with open(path, "rb", opener=regular) as file:
        while piece := file.read(PIECE):
            total.update(piece)
            if report is not None:
                report(len(piece))
    return total.hexdigest()


def remembered(path: Path) -> str:
    """sha256 of a file, read once for as long as its resolved path, size, time of change and inode stay the same.

    Files of 16 MiB and more are remembered between runs, in `astro/digests.json` below XDG_CACHE_HOME or ~/.cache; a
    record that cannot be read or written is ignored. Checks against a manifest call `sha256`, which always reads the
    file.
    """
    path = path.resolve()
    state = _state(path)
    sha = _seen.get((str(path), state)) or (_load().get((str(path), state)) if state[0] >= LARGE else None)
    if sha is None:
        sha = sha256(path)
        if _state(path) != state or time.time_ns() - state[1] < SETTLED_NS:
            return sha
        if state[0] >= LARGE:
            _store(str(path), state, sha)
    _seen[str(path), state] = sha
    return sha


def digest(path: Path) -> str:
    """The first 16 hex digits of `remembered`: the weights hash of one file."""
    return remembered(path)[:DIGEST_CHARACTERS]


def of_files(paths: Iterable[Path]) -> str:
    """16 hex digits: of one file its `digest`, of several over theirs in order."""
    digests = [digest(path) for path in paths]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:DIGEST_CHARACTERS]


def of_text(text: str) -> str:
    """16 hex digits over a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def cache_file() -> Path:
    """Where hashes are remembered."""
    return expanded(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE) / CACHE_FILE


def _state(path: Path) -> State:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def _load() -> dict[tuple[str, State], str]:
    """The recorded hashes; entries that are malformed, or not as they were written, are left out."""
    try:
        rows = Reader(AstroError).json(cache_file())
    except AstroError:
        return {}
    entries = {}
    for row in rows if isinstance(rows, list) else ():
        match row:
            case [str(path), int(size), int(changed), int(inode), str(sha), str(check)] if check == _check(row[:-1]):
                entries[path, (size, changed, inode)] = sha
    return entries


def _check(row: Sequence[Any]) -> str:
    """A checksum of an entry."""
    return hashlib.sha256(json.dumps(list(row)).encode()).hexdigest()[:DIGEST_CHARACTERS]


def _store(path: str, state: State, sha: str) -> None:
    """Add one entry; drop older ones of the same file and those of missing files.

    Two writers at once lose at most one entry.
    """
    kept = {key: value for key, value in _load().items() if key[0] != path and os.path.exists(key[0])}
    rows = [[name, *facts, value] for (name, facts), value in {**kept, (path, state): sha}.items()]
    rows = [[*row, _check(row)] for row in rows]
    with contextlib.suppress(OSError):
        durable.write_text(cache_file(), json.dumps(rows, indent=0))

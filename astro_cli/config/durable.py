"""Files that are written whole and to the disk.

After a kill or a power cut at any moment there is the old file or the new one, and perhaps a temporary one beside it,
`.<name>.<process>.part`, which nothing reads.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".*.part"  # the names of temporary files and folders, as a pattern


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place, on the disk, when the block ends well; on an error nothing
    is left behind.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)  # a link planted there would be written through
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON with sorted keys.

    Raises:
        ValueError: a number that is not finite.
        OSError: the file cannot be written.
    """
    write_text(path, json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's names, are on the disk. A file renamed into place is then whole even
    after a power cut.
    """
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Whether a name is one that only unfinished files and folders have."""
    return path.match(TEMPORARY)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder that is this process's alone."""
    for path in folder.glob(TEMPORARY):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

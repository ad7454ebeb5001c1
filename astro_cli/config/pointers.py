"""Pointers of git LFS: what a clone without LFS has in the place of large files."""

from __future__ import annotations

from pathlib import Path

START = b"version https://git-lfs.github.com/spec/"
WHAT = "a pointer of git LFS, not the file itself"
HINT = "run `git lfs pull` in its folder, or download the file"


def is_pointer(path: Path) -> bool:
    """Whether a file is only a pointer.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(START)) == START

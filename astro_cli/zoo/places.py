"""Where checkpoints lie on disk: a path, a known release's name, a file below the checkpoints folder. Free of torch."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from astro_cli.config.errors import CheckpointError, did_you_mean
from astro_cli.config.files import Reader, described, expanded
from astro_cli.zoo.entries import BY_NAME, SUFFIXES, Release, of_path

CHECKPOINTS_VARIABLE = "ASTRO_CHECKPOINTS"
DEFAULT_CHECKPOINTS = Path("~/.cache/astro")
MANIFEST = "manifest.json"


def checkpoints_folder() -> Path:
    """The folder checkpoints are looked for in and imported to."""
    return expanded(os.environ.get(CHECKPOINTS_VARIABLE) or DEFAULT_CHECKPOINTS)


def imported(entry: Release) -> Path | None:
    """The folder an entry was imported to under its own name."""
    folder = checkpoints_folder() / entry.name
    return folder if (folder / MANIFEST).is_file() else None


def release_of(source: str | Path, file: Path) -> Release | None:
    """The release in `file`, which was found as `source`: known by its name, its place, or the manifest of its import.
    None: no known release.

    Raises:
        CheckpointError: a manifest beside it that is damaged.
    """
    manifest = file.parent / MANIFEST
    if (entry := BY_NAME.get(str(source)) or of_path(source) or of_path(file)) is not None or not manifest.exists():
        return entry
    reader = Reader(CheckpointError, what="not readable", hint="`astro zoo import` writes the folder again")
    name = reader.table(manifest).get("entry")
    if name is not None and not isinstance(name, str):
        reader.fail(manifest, f"found {described(name)}, expected a name or null", key="entry")
    return BY_NAME.get(name or "")


def released(entry: Release) -> Path | None:
    """The entry's file or folder as released, anywhere below the checkpoints folder."""
    folder = checkpoints_folder()
    for suffix in ("", *SUFFIXES):
        paths = sorted(path for path in folder.glob(f"**/{glob.escape(entry.tail)}{suffix}") if suffix or path.is_dir())
        if paths:
            return paths[0]
    return None


def target(entry: Release) -> Path:
    """Where to put an entry's file, as the hub's own client names it."""
    return checkpoints_folder() / entry.folder / entry.file


def locate(source: str | Path) -> Path:
    """A checkpoint's file or folder.

    In this order: a path that exists; a known release by name, imported or as released; a path below the checkpoints
    folder; a known release by its file's name, whatever the ending.

    Raises:
        CheckpointError: nothing there, with the nearest known name and where its file belongs.
    """
    text = str(source)
    path = expanded(text)
    if text and path.exists():
        return path
    entry = BY_NAME.get(text) or of_path(text)
    place = (
        (entry and text in BY_NAME and (imported(entry) or released(entry)))
        or _below(path)
        or (entry and (imported(entry) or released(entry)))
    )
    if place:
        return place
    if entry is not None:
        hint = f"put {entry.file} of {entry.repo} at {target(entry)}, or name its path"
        raise CheckpointError(text, "", f"not here: neither imported nor below {checkpoints_folder()}", hint=hint)
    hint = (
        f"{did_you_mean(text, BY_NAME)}; or a file or folder, also below {checkpoints_folder()} "
        f"({CHECKPOINTS_VARIABLE})"
    )
    raise CheckpointError(text or "checkpoint", "", "no such checkpoint", hint=hint)


def _below(path: Path) -> Path | None:
    """A relative path directly or anywhere below the checkpoints folder."""
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return None
    folder = checkpoints_folder()
    direct = folder / path
    if direct.exists():
        return direct
    return next(iter(sorted(folder.glob(f"**/{glob.escape(path.as_posix())}"))), None)

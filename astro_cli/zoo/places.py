"""Where checkpoints lie on disk: a path, a known release's name, a file below the checkpoints folder, a hub id in the
Hugging Face cache. Free of torch.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from astro_cli.config.errors import CheckpointError, did_you_mean
from astro_cli.config.files import Reader, described, expanded
from astro_cli.zoo import hub
from astro_cli.zoo.entries import BY_NAME, SUFFIXES, Release, known, of_path

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
    if (entry := known(source) or of_path(file)) is not None or not manifest.exists():
        return entry
    reader = Reader(CheckpointError, what="not readable", hint="`astro zoo import` writes the folder again")
    name = reader.table(manifest).get("entry")
    if name is not None and not isinstance(name, str):
        reader.fail(manifest, f"found {described(name)}, expected a name or null", key="entry")
    return BY_NAME.get(name or "")


def released(entry: Release) -> Path | None:
    """The entry's file or folder as released: anywhere below the checkpoints folder, else in the Hugging Face cache."""
    folder = checkpoints_folder()
    for suffix in ("", *SUFFIXES):
        paths = sorted(path for path in folder.glob(f"**/{glob.escape(entry.tail)}{suffix}") if suffix or path.is_dir())
        if paths:
            return paths[0]
    return _cached(hub.HubId(entry.repo), entry)


def target(entry: Release) -> Path:
    """Where to put an entry's file, as the hub's own client names it."""
    return checkpoints_folder() / entry.folder / entry.file


def locate(source: str | Path) -> Path:
    """A checkpoint's file or folder.

    In this order: a path that exists; a known release by name, imported or as released; a path below the checkpoints
    folder; a hub id in the Hugging Face cache (of a known repository without a file: its first release); a known
    release by its file's name, whatever the ending.

    Raises:
        CheckpointError: nothing there, with the nearest known name, where its file belongs, and the line that brings
            it from the hub.
    """
    text = str(source)
    path = expanded(text)
    if text and path.exists():
        return path
    entry, hub_id = known(text), hub.parse(text)
    is_pinned = hub_id is not None and hub_id.revision is not None
    place = (
        (entry and text in BY_NAME and (imported(entry) or released(entry)))
        or _below(path)
        or (hub_id and _cached(hub_id, entry))
        or (entry and not is_pinned and (imported(entry) or released(entry)))
    )
    if place:
        return place
    where = f"below {checkpoints_folder()} nor in the Hugging Face cache, {hub.cache_folder()}"
    if entry is not None:
        hint = f"{download_line(text)}; or put {entry.file} of {entry.repo} at {target(entry)}, or name its path"
        raise CheckpointError(text, "", f"not here: not imported, and neither {where}", hint=hint)
    if line := download_line(text):
        hint = f"of the hub: {line}; else name a file or folder"
        raise CheckpointError(text, "", f"not here: no such path, and neither {where}", hint=hint)
    hint = (
        f"{did_you_mean(text, BY_NAME)}; or a file or folder, also below {checkpoints_folder()} "
        f"({CHECKPOINTS_VARIABLE})"
    )
    raise CheckpointError(text or "checkpoint", "", "no such checkpoint", hint=hint)


def download_line(source: str) -> str:
    """The hub client's line that brings a release or hub id: a file, or the whole repository where it is one; "" where
    the source is neither, or a path in a folder that is here.
    """
    entry, hub_id = known(source), hub.parse(source)
    if hub_id is not None and Path(hub_id.repo).parent.is_dir():
        hub_id = None
    if entry is not None:
        file = "" if entry.is_folder else entry.file
        return hub.download_line(hub.HubId(entry.repo, hub_id.revision if hub_id else None, file))
    return "" if hub_id is None else hub.download_line(hub_id)


def _cached(hub_id: hub.HubId, entry: Release | None) -> Path | None:
    """A hub id's place in the Hugging Face cache; of a repository that holds releases as files the entry's."""
    if entry is None or hub_id.file:
        return hub.cached(hub_id)
    if entry.is_folder:
        return hub.cached(hub_id, having=entry.file)
    return hub.cached(hub.HubId(hub_id.repo, hub_id.revision, entry.file))


def _below(path: Path) -> Path | None:
    """A relative path directly or anywhere below the checkpoints folder."""
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return None
    folder = checkpoints_folder()
    direct = folder / path
    if direct.exists():
        return direct
    return next(iter(sorted(folder.glob(f"**/{glob.escape(path.as_posix())}"))), None)

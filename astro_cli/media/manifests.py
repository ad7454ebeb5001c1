"""Videos that a line of a text file names: paths below the file's folder, whoever wrote them."""

from __future__ import annotations

import os
from pathlib import Path

from astro_cli.config.errors import RecipeError


def listed_video(manifest: Path, where: str, name: str) -> Path:
    """The path of a video that a line of a manifest names.

    Args:
        where: the line, for errors.

    Raises:
        RecipeError: it leaves the manifest's folder, or is not there.
    """
    inside = Path(os.path.normpath(name))
    if inside.is_absolute() or inside.parts[:1] == ("..",):
        what = f"found video {name!r}, which leaves the file's folder"
        raise RecipeError(manifest, where, what, hint="name videos by their paths below the folder of the file")
    path = manifest.parent / inside
    if not path.is_file():
        raise RecipeError(manifest, where, f"found video {name!r}, no such file", hint="paths are relative to the file")
    return path

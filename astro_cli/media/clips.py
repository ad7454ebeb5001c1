"""A user's video clips with their prompts, and the frames that training takes of a clip.

A source of clips is one of:

| source | prompts |
|---|---|
| `NAME.jsonl` | a line per clip: `{"video": "a.mp4", "prompt": "..."}`; paths below the file's folder |
| a folder with `manifest.jsonl` | as above |
| another folder | beside each `a.mp4` a text file `a.txt` |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, JsonValue

from astro_cli.config.base import Config
from astro_cli.config.errors import RecipeError
from astro_cli.config.files import Reader
from astro_cli.config.json_lines import json_lines
from astro_cli.media.decode import SUFFIXES, VideoError, frames, probe
from astro_cli.media.manifests import listed_video
from astro_cli.media.pictures import fitted
from astro_cli.media.video import Frame

MANIFEST = "manifest.jsonl"
EXAMPLE = '{"video": "a.mp4", "prompt": "..."}'
SOURCES = f"expected a folder of videos with a text file beside each, a folder with {MANIFEST}, or such a file"
TINY = 1e-6  # frames: what rounding in time * fps may amount to


@dataclass(frozen=True)
class Clip:
    path: Path
    prompt: str


@dataclass(frozen=True)
class ClipForm:
    """What training takes of a clip: its first `frames` frames at `fps`, the middle of each scaled to cover the
    size.
    """

    frames: int
    fps: float
    height: int
    width: int


class _Line(Config):
    """A line of a manifest; what only evaluation reads may stand there too."""

    video: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    prompt_id: str | None = None
    seed: int | None = None
    index: int | None = None
    labels: dict[str, JsonValue] = Field(default_factory=dict)


def list_clips(source: str | Path) -> list[Clip]:
    """The clips of a source, in the manifest's order or by name. Opens no video.

    Raises:
        RecipeError: no such source, no clip in it, a malformed line, a path that leaves the manifest's
            folder, or a clip without its file or its prompt.
    """
    source = Path(source)
    if source.is_dir():
        manifest = source / MANIFEST
        clips = list(_lines(manifest)) if manifest.is_file() else list(_texts(source))
    elif source.is_file() and source.suffix == ".jsonl":
        clips = list(_lines(source))
    else:
        what = f"found a {source.suffix or 'file without ending'}" if source.is_file() else "no such file or folder"
        raise RecipeError(source, "clips", f"{what}, {SOURCES}")
    if not clips:
        raise RecipeError(
            source, "clips", f"holds no clip, {SOURCES}", hint=f"videos end in {', '.join(sorted(SUFFIXES))}"
        )
    return clips


def source_files(source: str | Path) -> tuple[Path, ...]:
    """The files of a source: its manifest, or the text beside each video, and the videos.

    Raises:
        As `list_clips`.
    """
    source = Path(source)
    videos = list(dict.fromkeys(clip.path for clip in list_clips(source)))
    manifest = source / MANIFEST if source.is_dir() else source
    texts = [manifest] if manifest.is_file() else [video.with_suffix(".txt") for video in videos]
    return (*texts, *videos)


def _lines(manifest: Path) -> Iterator[Clip]:
    for number, line in json_lines(manifest, _Line, RecipeError, key="clips", example=EXAMPLE):
        yield Clip(listed_video(manifest, f"line {number}", line.video), line.prompt)


def _texts(folder: Path) -> Iterator[Clip]:
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        text = path.with_suffix(".txt")
        hint = f"write each video's prompt into a text file of its name, or all into {MANIFEST}: {EXAMPLE}"
        if not text.exists():
            raise RecipeError(folder, path.name, f"has no prompt, no {text.name} beside it", hint=hint)
        prompt = " ".join(Reader(RecipeError, what="no prompt", hint=hint).text(text).split())
        if not prompt:
            raise RecipeError(folder, text.name, "holds no prompt")
        yield Clip(path, prompt)


def clip_frames(path: Path, form: ClipForm) -> np.ndarray:
    """The frames (T, H, W, 3) uint8 that a form takes of a video: of each moment the frame that is shown then.

    Raises:
        VideoError: no video, damaged within these frames, or too short.
    """
    info = probe(path)
    wanted = [math.floor(number * info.fps / form.fps + TINY) for number in range(form.frames)]
    if wanted[-1] >= info.frames:
        what = f"too short: {info.frames} frames at {info.fps:g} a second, expected {form.frames} at {form.fps:g}"
        raise VideoError(path, "", what)
    taken: list[Frame] = []
    for index, frame in frames(path):
        while len(taken) < len(wanted) and wanted[len(taken)] == index:
            taken.append(fitted(frame, form.height, form.width))
        if len(taken) == len(wanted):
            return np.stack(taken)
    raise VideoError(path, "", f"damaged: {len(taken)} of {len(wanted)} frames decode")

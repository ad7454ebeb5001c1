"""A user's pairs of videos, one preferred to the other: a text file of JSON lines.

    {"prompt": "...", "chosen": "a.mp4", "rejected": "b.mp4"}

Paths are relative to the file and stay below its folder. A line may have a `verdict` on chosen against rejected, as GSB
annotations have: G (good, the default), S (same: the pair is left out) or B (bad: the two change places). The answers
that the page of `astro study build --mode gsb` saves are such lines.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, JsonValue

from astro_cli.config.base import Config
from astro_cli.config.errors import RecipeError
from astro_cli.config.json_lines import json_lines
from astro_cli.config.verdicts import ALLOWED, VERDICTS
from astro_cli.media.decode import VideoError, probe
from astro_cli.media.manifests import listed_video

EXAMPLE = '{"prompt": "...", "chosen": "a.mp4", "rejected": "b.mp4"}'
SHOWN = 40  # characters of a wrong verdict


@dataclass(frozen=True)
class VideoPair:
    """Two videos of one prompt, and the line that names them."""

    prompt: str
    chosen: Path
    rejected: Path
    line: int


class _Line(Config):
    """A line; what only an annotation's reader wants may stand there too."""

    prompt: str = Field(min_length=1)
    chosen: str = Field(min_length=1)
    rejected: str = Field(min_length=1)
    verdict: str = "good"
    criterion: str = ""
    arm: str = ""
    other: str = ""
    rater: str = ""
    item: str = ""
    labels: dict[str, JsonValue] = Field(default_factory=dict)


def list_pairs(manifest: str | Path) -> list[VideoPair]:
    """The decided pairs of a file, in its order, the preferred video first. Opens no video.

    Raises:
        RecipeError: no such file, a malformed line, another verdict, a video that is not there or outside the file's
            folder, twice the same video, or no decided pair.
    """
    manifest = Path(manifest)
    pairs = [pair for pair in _lines(manifest) if pair is not None]
    if not pairs:
        raise RecipeError(manifest, "pairs", f"holds no decided pair, expected lines such as {EXAMPLE}")
    return pairs


def check_videos(manifest: str | Path) -> None:
    """Open the videos of a file's pairs: both of a pair must have the same size, rate and length.

    Raises:
        RecipeError: as `list_pairs`, or a pair that does not fit.
    """
    for pair in list_pairs(manifest):
        try:
            chosen, rejected = probe(pair.chosen), probe(pair.rejected)
        except VideoError as error:
            what = f"{Path(error.where).name}: {error.what}"
            raise RecipeError(manifest, f"line {pair.line}", what, hint=error.hint) from error
        shown = [f"{info.width}x{info.height}, {info.frames} frames at {info.fps:g}" for info in (chosen, rejected)]
        if (chosen.width, chosen.height) != (rejected.width, rejected.height):
            differ = "two sizes"
        elif (chosen.frames, chosen.fps) != (rejected.frames, rejected.fps):
            differ = "two lengths"
        else:
            continue
        hint = "cut and scale both alike: the model would learn the size or the length"
        what = f"a pair of {differ}: found chosen {shown[0]}; rejected {shown[1]}; expected the same"
        raise RecipeError(manifest, f"line {pair.line}", what, hint=hint)


def pair_files(manifest: str | Path) -> tuple[Path, ...]:
    """The file and the videos of its decided pairs, each once.

    Raises:
        As `list_pairs`.
    """
    files = [Path(manifest)]
    for pair in list_pairs(manifest):
        files += [pair.chosen, pair.rejected]
    return tuple(dict.fromkeys(files))


def _lines(manifest: Path) -> Iterator[VideoPair | None]:
    """The pair of every line that is not empty; None for a tie."""
    for number, line in json_lines(manifest, _Line, RecipeError, key="pairs", example=EXAMPLE):
        yield _pair(manifest, number, line)


def _pair(manifest: Path, number: int, line: _Line) -> VideoPair | None:
    where = f"line {number}"
    verdict = VERDICTS.get(line.verdict.lower())
    if verdict is None:
        what = f"verdict: found {line.verdict[:SHOWN]!r}, allowed: {ALLOWED}"
        raise RecipeError(manifest, where, what, hint="G: chosen is better; S: no difference; B: rejected is better")
    chosen, rejected = (listed_video(manifest, where, name) for name in (line.chosen, line.rejected))
    if chosen.resolve() == rejected.resolve() or filecmp.cmp(chosen, rejected, shallow=False):
        what = f"chosen and rejected are the same video: {line.chosen!r}, {line.rejected!r}"
        raise RecipeError(manifest, where, what, hint="a pair is two videos of one prompt")
    if verdict == "same":
        return None
    first, second = (chosen, rejected) if verdict == "good" else (rejected, chosen)
    return VideoPair(line.prompt, first, second, number)

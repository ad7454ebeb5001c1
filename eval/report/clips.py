"""The page's clips: the same prompt and noise by several arms, as a video side by side and as a contact sheet.

Dimensions: T frame, H, W pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from PIL import Image

from astro_cli.generate import media
from astro_cli.generate.mp4 import write_mp4
from eval.report.page import Part, Section, Text, VideoPlayer

# The page travels by mail and opens on a phone: clips that would take it past this are left out, and it says so.
LIMIT_BYTES = 8 * 2**20
PANE_PX = 256  # of a small world's clip; larger clips keep their size
SHEET_PX = 96  # rows of a frame on a contact sheet
SHEET_FRAMES = 9
LETTERS = ascii_uppercase  # names of arms are too long for a clip on a phone
MIN_SECONDS = 3.0  # shorter clips are repeated in the file: a player's bar of one second cannot be used


@dataclass(frozen=True)
class Take:
    """One prompt and seed by every arm: label -> (T, H, W, 3) in one size."""

    prompt: str
    seed: int
    fps: float
    clips: Mapping[str, np.ndarray]
    note: str = ""  # e.g. that only the beginning is shown


def clips_section(takes: Sequence[Take], folder: Path, limit: int = LIMIT_BYTES) -> Section:
    """A video and a contact sheet per take, as many as the limit holds. Files go to `folder`."""
    videos: list[Part] = []
    size = 0
    for index, take in enumerate(takes):
        video = _video(take, folder / f"clip-{index}")
        size += sum(path.stat().st_size for path in (video.path, video.sheet) if path is not None)
        if size > limit and videos:
            break
        videos.append(video)
    return Section("Clips, side by side", [Text(_note(takes, len(videos), limit)), *videos])


def _video(take: Take, stem: Path) -> VideoPlayer:
    labels, clips = list(take.clips), list(take.clips.values())
    frames, height = clips[0].shape[:2]
    row = media.in_a_row(clips, LETTERS[: len(clips)], max(1, PANE_PX // height))
    repeats = max(1, round(MIN_SECONDS * take.fps / frames))
    path, sheet = stem.with_suffix(".mp4"), stem.with_suffix(".png")
    write_mp4(np.concatenate([row] * repeats), path, take.fps)
    every = -(-frames // SHEET_FRAMES)
    shrink = max(1, height // SHEET_PX)
    rows = [
        (f"{letter}: {label}", _reduced(clip[::every], shrink))
        for letter, (label, clip) in zip(LETTERS, take.clips.items(), strict=False)
    ]
    media.contact_sheet(rows, sheet, max(1, SHEET_PX // height), apart=every)
    name = " beside ".join(labels)
    caption = f"{take.prompt} (seed {take.seed}{f'; {take.note}' if take.note else ''})"
    return VideoPlayer(path, f"{name}: {take.prompt}", caption, sheet)


def _reduced(clip: np.ndarray, factor: int) -> np.ndarray:
    """Every factor x factor square as one pixel, its mean."""
    return np.stack([np.asarray(Image.fromarray(frame).reduce(factor)) for frame in media.to_uint8(clip)])


def _note(takes: Sequence[Take], shown: int, limit: int) -> str:
    labels = ", ".join(f"{letter}: `{label}`" for letter, label in zip(LETTERS, takes[0].clips, strict=False))
    what = f"{labels}. All start from the same prompt and noise."
    left_out = (
        f" {shown} of {len(takes)} are shown: more would take the page's clips over {limit / 2**20:.0f} MiB."
        if shown < len(takes)
        else ""
    )
    return f"{what} Short clips repeat; small ones are enlarged without smoothing.{left_out}"

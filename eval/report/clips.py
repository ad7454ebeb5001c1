"""The page's clips: the same prompt and noise by several arms, as a video side by side and as frames in a row.

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
from eval.report.page import Heading, Part, Section, Text, VideoPlayer

# The page travels by mail and opens on a phone: clips that would take it past this are left out, and it says so.
LIMIT_BYTES = 8 * 2**20
PANE_PX = 256  # of a small world's clip; larger clips keep their size
STRIP_PX = 96  # rows of a frame in a row of frames
STRIP_FRAMES = 9
STRIP_GAP_PX = 4
NAMED = 2  # arms whose names stand above their clips; more are too narrow on a phone, and have letters
LETTERS = ascii_uppercase
MIN_SECONDS = 3.0  # shorter clips are repeated in the file: a player's bar of one second cannot be used


@dataclass(frozen=True)
class Take:
    """One prompt and seed by every arm: label -> (T, H, W, 3) in one size."""

    prompt: str
    seed: int
    fps: float
    clips: Mapping[str, np.ndarray]
    note: str = ""  # e.g. that only the beginning is shown
    group: str = ""  # takes of one group follow each other, under its name


def clips_section(takes: Sequence[Take], folder: Path, limit: int = LIMIT_BYTES) -> Section:
    """A video and the frames of each clip per take, as many as the limit holds. Files go to `folder`."""
    videos: list[Part] = []
    size, shown, group = 0, 0, ""
    for index, take in enumerate(takes):
        video = _video(take, folder / f"clip-{index}")
        size += video.path.stat().st_size + sum(path.stat().st_size for _, path in video.strips)
        if size > limit and videos:
            break
        if take.group != group:
            group = take.group
            videos.append(Heading(group, f"clips-{group}"))
        videos.append(video)
        shown += 1
    return Section("Clips", [Text(_note(takes, shown, limit)), *videos])


def _video(take: Take, stem: Path) -> VideoPlayer:
    labels, clips = _labels(take), list(take.clips.values())
    frames, height = clips[0].shape[:2]
    row = media.in_a_row(clips, labels, max(1, PANE_PX // height))
    repeats = max(1, round(MIN_SECONDS * take.fps / frames))
    path = stem.with_suffix(".mp4")
    write_mp4(np.concatenate([row] * repeats), path, take.fps)
    strips = []
    for index, (label, clip) in enumerate(zip(labels, clips, strict=True)):
        strips.append((label, _write_strip(clip, stem.with_name(f"{stem.name}-{index}.png"))))
    caption = f"{take.prompt} (seed {take.seed}{f'; {take.note}' if take.note else ''})"
    return VideoPlayer(path, f"{' beside '.join(take.clips)}: {take.prompt}", caption, strips)


def _labels(take: Take) -> list[str]:
    """What stands above each clip: its arm's name where there is room."""
    return list(take.clips) if len(take.clips) <= NAMED else list(LETTERS[: len(take.clips)])


def _write_strip(clip: np.ndarray, path: Path) -> Path:
    """Frames of a clip beside each other, the gaps between them transparent."""
    frames, height = clip.shape[:2]
    every = -(-frames // STRIP_FRAMES)
    shown = media.upscale(_reduced(clip[::every], max(1, height // STRIP_PX)), max(1, STRIP_PX // height))
    count, rows, columns, _ = shown.shape
    step = columns + STRIP_GAP_PX
    strip = np.zeros((rows, count * step - STRIP_GAP_PX, 4), dtype=np.uint8)
    for index, frame in enumerate(shown):
        strip[:, index * step : index * step + columns, :3] = frame
        strip[:, index * step : index * step + columns, 3] = 255
    with media.written_whole(path) as temporary:
        Image.fromarray(strip).save(temporary, format="PNG")
    return path


def _reduced(clip: np.ndarray, factor: int) -> np.ndarray:
    """Every factor x factor square as one pixel, its mean."""
    return np.stack([np.asarray(Image.fromarray(frame).reduce(factor)) for frame in media.to_uint8(clip)])


def _note(takes: Sequence[Take], shown: int, limit: int) -> str:
    arms = list(takes[0].clips)
    named = [f"`{arm}`" for arm in arms]
    if len(arms) > NAMED:
        named = [f"{letter}: `{arm}`" for letter, arm in zip(LETTERS, arms, strict=False)]
    left_out = (
        f" {shown} of {len(takes)} are shown: more would take the page's clips over {limit / 2**20:.0f} MiB."
        if shown < len(takes)
        else ""
    )
    return f"{', '.join(named)}: the same prompts and noise. Short clips repeat.{left_out}"

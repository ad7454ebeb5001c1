"""Turns a contact sheet of short clips, base above tuned, into an animation of all its clips.

Usage: python scripts/animate_sheet.py results/figures/sheet_short_causal_forcing.png docs/images/base_tuned.gif
A sheet of short clips shows every frame, enlarged without a filter, so no frame is lost.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from astro_cli.generate import media

NAMES = ("base", "tuned")  # of the rows of a prompt
OUTLINE = (20, 22, 28)  # of frames
ENLARGED, MARGIN = 6, 10  # pixels per world pixel, and around the sheet
FPS = 8.0  # of the embedded world
SCALE = 2  # pixels per world pixel: a GIF keeps the fine grain of soft clips badly
OUTLINED = 0.95  # share of an outline's pixels that have its colour


def _runs(is_outline: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of every stretch between two outlines that is longer than a gap."""
    at = np.flatnonzero(is_outline)
    return [(int(a) + 1, int(b)) for a, b in pairwise(at) if b - a > 1]


def clips(sheet: np.ndarray, size: int, length: int) -> list[np.ndarray]:
    """The clips (T, H, W, 3) of a sheet (H', W', 3), each `length` square frames of `size` world pixels, in one line or
    several.

    Raises:
        ValueError: no outlined lines of frames, or no whole clips.
    """
    side = size * ENLARGED
    is_ink = (sheet == np.array(OUTLINE, dtype=np.uint8)).all(axis=-1)
    above = is_ink[:, MARGIN : MARGIN + side].mean(axis=1) > OUTLINED  # a line may hold one frame only
    frames: list[np.ndarray] = []
    for top, end in _runs(above):
        if end - top == side:
            columns = [(left, right) for left, right in _runs(is_ink[top:end].all(axis=0)) if right - left == side]
            frames += [sheet[top:end, left:right][::ENLARGED, ::ENLARGED] for left, right in columns]
    if not frames:
        raise ValueError("no lines of outlined frames: is this a sheet of short clips?")
    if len(frames) % length:
        raise ValueError(f"{len(frames)} frames are no whole clips of {length}")
    return [np.stack(frames[start : start + length]) for start in range(0, len(frames), length)]


def main(source: Path, target: Path, size: int = 32, length: int = 33) -> None:
    rows = clips(np.asarray(Image.open(source).convert("RGB")), size, length)
    both = [
        media.in_a_row(rows[index :: len(NAMES)], [name] * (len(rows) // len(NAMES)), SCALE)
        for index, name in enumerate(NAMES)
    ]
    media.write_gif(np.concatenate(both, axis=1), target, FPS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

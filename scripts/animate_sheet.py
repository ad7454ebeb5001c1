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
SCALE = 4  # pixels per world pixel: six clips are as wide as a page's column
OUTLINED = 0.95  # share of a line's pixels that have the outline's colour


def _runs(is_outline: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of every stretch between two outlines that is longer than a gap."""
    at = np.flatnonzero(is_outline)
    return [(int(a) + 1, int(b)) for a, b in pairwise(at) if b - a > 1]


def clips(sheet: np.ndarray, size: int) -> list[np.ndarray]:
    """The clips (T, H, W, 3) of a sheet (H', W', 3), each of one row of square frames of `size` world pixels.

    Raises:
        ValueError: no outlined rows of frames.
    """
    side = size * ENLARGED
    is_ink = (sheet == np.array(OUTLINE, dtype=np.uint8)).all(axis=-1)
    width = is_ink.shape[1] - 2 * MARGIN
    lines = is_ink[:, MARGIN : MARGIN + width].mean(axis=1) > OUTLINED
    rows = [(top, end) for top, end in _runs(lines) if end - top == side]
    found = []
    for top, end in rows:
        columns = [(left, right) for left, right in _runs(is_ink[top:end].all(axis=0)) if right - left == side]
        frames = [sheet[top:end, left:right][::ENLARGED, ::ENLARGED] for left, right in columns]
        found.append(np.stack(frames))
    if not found:
        raise ValueError("no rows of outlined frames: is this a sheet of short clips?")
    return found


def main(source: Path, target: Path, size: int = 32) -> None:
    rows = clips(np.asarray(Image.open(source).convert("RGB")), size)
    both = [
        media.in_a_row(rows[index :: len(NAMES)], [name] * (len(rows) // len(NAMES)), SCALE)
        for index, name in enumerate(NAMES)
    ]
    media.write_gif(np.concatenate(both, axis=1), target, FPS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

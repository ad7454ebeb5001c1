"""The newest frame of a running stream: a PNG that is replaced with every block, and half-blocks in the terminal."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from astro_cli.generate.media import to_uint8, upscale, written_whole

HALF_BLOCK = "▀"  # its ink is the upper pixel, its ground the lower one
ROWS_LEFT = 8  # lines of the terminal kept for typing
MAX_COLUMNS = 72
SAVE, RESTORE, RESET = "\x1b7", "\x1b8", "\x1b[0m"


def write_preview(frame_HWC: np.ndarray, path: Path, scale: int) -> None:
    """Replace the PNG at once, so that a viewer never reads half of it."""
    with written_whole(path) as temporary:
        Image.fromarray(upscale(to_uint8(frame_HWC), scale)).save(temporary, format="PNG")


def half_blocks(frame_HWC: np.ndarray, columns: int, rows: int) -> list[str]:
    """A frame as lines of coloured half-blocks that fit into so many columns and rows, its proportions kept."""
    picture = Image.fromarray(to_uint8(frame_HWC))
    share = min(columns / picture.width, 2 * rows / picture.height)
    width, height = max(1, round(picture.width * share)), max(2, round(picture.height * share) // 2 * 2)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BOX))
    return [_line(upper, lower) for upper, lower in zip(pixels[::2], pixels[1::2], strict=True)]


def _line(upper_WC: np.ndarray, lower_WC: np.ndarray) -> str:
    return "".join(_cell(upper, lower) for upper, lower in zip(upper_WC, lower_WC, strict=True)) + RESET


def _cell(upper: np.ndarray, lower: np.ndarray) -> str:
    ink, ground = ";".join(map(str, upper)), ";".join(map(str, lower))
    return f"\x1b[38;2;{ink}m\x1b[48;2;{ground}m{HALF_BLOCK}"


class TerminalPreview:
    """The newest frame at the top of the terminal; what is typed and printed scrolls below it.

    Does nothing where `out` is no terminal.
    """

    def __init__(self, out: IO[str]) -> None:
        self.out, self.live = out, out.isatty()
        size = shutil.get_terminal_size()
        self.columns, self.rows = min(size.columns, MAX_COLUMNS), size.lines - ROWS_LEFT
        self.lines = size.lines
        self.live = self.live and self.rows > 1

    def __enter__(self) -> TerminalPreview:
        if self.live:  # a cleared screen whose scrolling part begins below the picture and the line under it
            self.out.write(f"\x1b[2J\x1b[{self.rows + 2};{self.lines}r\x1b[{self.rows + 2};1H")
            self.out.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.out.write(f"\x1b[r\x1b[{self.lines};1H\n")
            self.out.flush()

    def show(self, frame_HWC: np.ndarray, status: str) -> None:
        """Draw a frame and a line under it, and put the cursor back where the user types."""
        if not self.live:
            return
        drawn = [
            f"\x1b[{row};1H{line}\x1b[K" for row, line in enumerate(half_blocks(frame_HWC, self.columns, self.rows), 1)
        ]
        self.out.write(f"{SAVE}{''.join(drawn)}\x1b[{len(drawn) + 1};1H{status[: self.columns]}\x1b[K{RESTORE}")
        self.out.flush()

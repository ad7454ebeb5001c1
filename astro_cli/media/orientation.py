"""How a file says that its frames are turned or mirrored to be shown, as phones write it.

Source: ISO/IEC 14496-12, 8.3.2 (the matrix of a track); FFmpeg, libavutil/display.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from astro_cli.media.video import Frame

SIDE_DATA = "DISPLAYMATRIX"
ONE = 2**16  # the matrix counts in 1 / 65536
SLACK = 1e-3  # of a number that was rounded when it was written


@dataclass(frozen=True)
class Orientation:
    """What is done to a frame (H, W, 3) to show it: rows and columns swapped, then rows and columns reversed."""

    swap: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def mirrors(self) -> bool:
        """Whether no rotation alone does it."""
        return self.swap ^ self.flip_rows ^ self.flip_columns

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown."""
        return (height, width) if self.swap else (width, height)

    def upright(self, frame: Frame) -> Frame:
        if self == UPRIGHT:
            return frame
        shown = frame.swapaxes(0, 1) if self.swap else frame
        return np.ascontiguousarray(shown[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])


UPRIGHT = Orientation()


def of_frame(picture: Any) -> Orientation:
    """The orientation of PyAV's frame.

    Raises:
        ValueError: no quarter turn.
    """
    data = picture.side_data.get(SIDE_DATA)
    return UPRIGHT if data is None else of_matrix(np.frombuffer(bytes(data), dtype=np.int32))


def of_matrix(matrix: np.ndarray) -> Orientation:
    """The orientation of a display matrix (9): the pixel at (x, y) is shown at (a x + c y, b x + d y), where a, b are
    its first and c, d its fourth and fifth numbers.

    Raises:
        ValueError: no quarter turn.
    """
    given = [float(matrix[place]) / ONE for place in (0, 1, 3, 4)]
    a, b, c, d = whole = [round(number) for number in given]
    if max(abs(number - value) for number, value in zip(given, whole, strict=True)) > SLACK:
        a = b = c = d = 0  # neither turn of those below
    if all(abs(value) == 1 for value in (a, d)) and b == c == 0:
        return Orientation(flip_rows=d < 0, flip_columns=a < 0)
    if all(abs(value) == 1 for value in (b, c)) and a == d == 0:
        return Orientation(swap=True, flip_rows=b < 0, flip_columns=c < 0)
    raise ValueError(f"turns or stretches the frames by {tuple(given)}, expected quarter turns")

"""Types of camera motion: recognised from points tracked through a video, and read from a prompt. Free of torch.

Dimensions: T frame, N point of the grid, row by row, R grid row, K grid column, 2 = x, y in pixels.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

GRID = 10  # points a side
MIDDLE = GRID // 2  # one point stands for an edge: the sixth of ten, half a step beyond the centre
STILL_SHARE = 0.005  # of the shorter side; a point that moves no further along an axis is still
STATIC = "static"

# What a prompt says -> the type of motion; sought in this order, the first that is in the prompt counts.
PHRASES = {
    "camera pans left": "pan_left",
    "camera pans right": "pan_right",
    "camera tilts up": "tilt_up",
    "camera tilts down": "tilt_down",
    "camera zooms in": "zoom_in",
    "camera zooms out": "zoom_out",
    "camera static": STATIC,
}
# Both edges move alike: the picture goes one way, so the camera goes the other.
ALIKE = {"left": "pan_right", "right": "pan_left", "down": "tilt_up", "up": "tilt_down", STATIC: STATIC}
# Two edges that face each other move apart or together.
TOP_AND_BOTTOM = {("up", "down"): "zoom_in", ("down", "up"): "zoom_out"}
LEFT_AND_RIGHT = {("left", "right"): "zoom_in", ("right", "left"): "zoom_out"}


def prompt_motion(prompt: str) -> str | None:
    """The type of motion that a prompt asks for, None where it asks for none."""
    return next((motion for phrase, motion in PHRASES.items() if phrase in prompt), None)


def camera_types(tracks_TN2: np.ndarray, short_side: int) -> set[str]:
    """All types of motion that the way of four edge points from the first frame to the last agrees with; empty: none.

    Args:
        tracks_TN2: a grid of GRID x GRID points, finite, in pixels of the video; fractions are cut off.
        short_side: of the video, in pixels.

    Source: VBench++, arXiv 2411.13503; vbench 0.1.5, vbench2_beta_i2v/camera_motion.py, CameraPredict.

    **Deviations:** none. "No type" is an empty set there named "None". As released, an edge's point lies beside the
    centre, so that a zoom in also counts as a pan to the left and a tilt up where those points move far enough.
    """
    ends_2RK2 = tracks_TN2[[0, -1]].astype(np.int64).reshape(2, GRID, GRID, 2)
    moved_RK2 = ends_2RK2[1] - ends_2RK2[0]
    still_px = short_side * STILL_SHARE
    top, bottom, left, right = (
        directions(moved_RK2[row, column], still_px)
        for row, column in ((0, MIDDLE), (-1, MIDDLE), (MIDDLE, 0), (MIDDLE, -1))
    )
    upright, level = _of_pair(top, bottom, TOP_AND_BOTTOM), _of_pair(left, right, LEFT_AND_RIGHT)
    return {STATIC} if upright == level == {STATIC} else (upright | level) - {STATIC}


def directions(moved_2: np.ndarray, still_px: float) -> set[str]:
    """Where a point went, along each axis that it moved on; {"static"}: along none."""
    x, y = moved_2
    ways = {word for word, length in (("right", x), ("left", -x), ("down", y), ("up", -y)) if length > still_px}
    return ways or {STATIC}


def _of_pair(first: Set[str], second: Set[str], facing: dict[tuple[str, str], str]) -> set[str]:
    alike = {ALIKE[word] for word in first & second}
    return alike | {motion for (one, other), motion in facing.items() if one in first and other in second}

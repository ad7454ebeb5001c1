"""Which frames of a video a protocol takes, one function per published rule: numbers in, indices out. Free of torch.

`length` is the number of frames of the video, T. Every list is ascending; an index may repeat where the protocol
repeats it.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

TINY = 1e-6  # frames: what rounding in start * fps may amount to


def middle(count: int, length: int) -> list[int]:
    """The middle frame of each of `count` equal parts; a shorter video repeats its last chosen frame.

    Source: VBench 0.1.5, utils.py, `get_frame_indices(sample="middle")`: its `load_video(num_frames=...)`, ViCLIP (8),
        UMT and GRiT (16).
    **Deviations:** none.
    """
    parts = min(_positive(count), _positive(length))
    edges = np.linspace(0, length, parts + 1).astype(int)
    chosen = [int(begin + end - 1) // 2 for begin, end in itertools.pairwise(edges)]
    return chosen + [chosen[-1]] * (count - parts)


def every(step: int, length: int) -> list[int]:
    """Every `step`-th frame from the first."""
    return list(range(0, _positive(length), _positive(step)))


def strided(count: int, length: int) -> list[int]:
    """`frames[::T // count][:count]`: the first frames of `count` strides; what is left over at the end is never looked
    at.

    Source: VideoCLIP-XL, demo.py, with 8. **Deviations:** none; too few frames are refused here too, with a message
        instead of a failed slice.

    Raises:
        ValueError: fewer frames than `count`.
    """
    if length < _positive(count):
        raise ValueError(f"{length} frames are too few, at least {count} are needed")
    return every(length // count, length)[:count]


def between(start: float, end: float, length: int, fps: float) -> list[int]:
    """The frames shown in [start, end) seconds, frame i being shown at i / fps.

    Segments are cut by time, not by frame count.
    """
    first, last = (max(0, math.ceil(seconds * fps - TINY)) for seconds in (start, end))
    return list(range(first, min(last, length)))


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(f"expected a positive number, found {number}")
    return number

"""Which frames of a video a protocol takes, one function per published rule: numbers in, indices out. Decodes nothing. Free of torch.

`length` is the number of frames of the video, T. Every list is ascending; an index may repeat where the protocol repeats it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

TINY = 1e-6  # frames: what rounding in start * fps may amount to


def middle(count: int, length: int) -> list[int]:
    """The middle frame of each of `count` equal parts; a shorter video repeats its last chosen frame.

    Source: VBench 0.1.5, utils.py, `get_frame_indices(sample="middle")`: its `load_video(num_frames=...)`, ViCLIP (8), UMT and GRiT (16).
    **Deviations:** none.
    """
    parts = min(_positive(count), _positive(length))
    edges = np.linspace(0, length, parts + 1).astype(int)
    chosen = [int(begin + end - 1) // 2 for begin, end in itertools.pairwise(edges)]
    return chosen + [chosen[-1]] * (count - parts)


def evenly(count: int, length: int) -> list[int]:
    """`count` frames from the first to the last, evenly spaced and rounded half to even.

    Source: VideoAlign, vision_process.py: `torch.linspace(0, T - 1, n).round().long()`.
    **Deviations:** none; torch's float32 steps are taken, from the end in the second half, since ties fall elsewhere in float64.
    """
    if _positive(count) == 1:
        return [0]
    last, place = np.float32(_positive(length) - 1), np.arange(count)
    step = last / np.float32(count - 1)
    from_front, from_back = step * place.astype(np.float32), last - step * (count - 1 - place).astype(np.float32)
    return np.rint(np.where(place < count // 2, from_front, from_back)).astype(int).tolist()


def even_count(length: int, fps: float, sample_fps: float = 2.0, least: int = 4, most: int = 768, factor: int = 2) -> int:
    """How many frames `evenly` is asked for, so that they are `sample_fps` apart: rounded to a multiple of `factor`, between `least` and `most`.

    Source: VideoAlign's and qwen-vl-utils' `smart_nframes`; 81 frames at 16 fps give 10.
    **Deviations:** none.

    Raises:
        ValueError: fewer frames than the least number.
    """
    smallest, largest = math.ceil(least / factor) * factor, min(most, length) // factor * factor
    count = round(min(max(length / fps * sample_fps, smallest), largest) / factor) * factor
    if not factor <= count <= length:
        raise ValueError(f"{length} frames are too few, at least {factor} are needed")
    return count


def centers(length: int, fps: float, sample_fps: float, most: int | None = None) -> list[int]:
    """The frame in the middle of every 1 / `sample_fps` seconds, the first `most` of them.

    Source: VBench 0.1.5, utils.py, `get_frame_indices(sample="fps...")`.
    **Deviations:** none.
    """
    gap, seconds = 1 / sample_fps, _positive(length) / fps
    times = np.arange(gap / 2, seconds + gap / 2, gap)
    chosen = [index for index in np.around(times * fps).astype(int).tolist() if index < length]
    return chosen if most is None else chosen[:most]


def every(step: int, length: int) -> list[int]:
    """Every `step`-th frame from the first. VBench's dynamic degree takes step max(1, round(fps / 8)), see `flow_step`."""
    return list(range(0, _positive(length), _positive(step)))


def flow_step(fps: float) -> int:
    """Frames between two that optical flow compares, so that there are about 8 a second. Source: VBench 0.1.5, dynamic_degree.py, `get_frames`."""
    return max(1, round(fps / 8))


def strided(count: int, length: int) -> list[int]:
    """`frames[::T // count][:count]`: the first frames of `count` strides; what is left over at the end is never looked at.

    Source: VideoCLIP-XL, demo.py, with 8. **Deviations:** none; too few frames are refused here too, with a message instead of a failed slice.

    Raises:
        ValueError: fewer frames than `count`.
    """
    if length < _positive(count):
        raise ValueError(f"{length} frames are too few, at least {count} are needed")
    return every(length // count, length)[:count]


def between(start: float, end: float, length: int, fps: float) -> list[int]:
    """The frames shown in [start, end) seconds, frame i being shown at i / fps. Segments are cut by time, not by frame count."""
    first, last = (max(0, math.ceil(seconds * fps - TINY)) for seconds in (start, end))
    return list(range(first, min(last, length)))


def best(scores: Sequence[float], share: float) -> list[int]:
    """The frames of the max(1, int(share * T)) highest scores, in their order in the video; of equal scores the earlier frame.

    Source: Astrolabe, 2603.17051, HPSv3 reward: share 0.3. **Deviations:** none.
    """
    kept = max(1, int(share * _positive(len(scores))))
    return sorted(sorted(range(len(scores)), key=lambda index: -scores[index])[:kept])


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(f"expected a positive number, found {number}")
    return number

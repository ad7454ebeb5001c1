"""Reference flows of a video: a file of flows, or another video whose flow is estimated the same way. Free of torch.

Dimensions: K pair of frames, 2 x and y displacement in pixels, H, W pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from astro_cli.config.files import check_regular
from astro_cli.media.decode import VideoError, frames, probe
from eval.contract import Frame, Sample, ScoreError
from eval.video.sampling import every
from eval.watchers.flow_label import LABEL, Estimate, references_of

FPS_TOLERANCE = 0.01  # 30 and 29.97 are one rate


def reference_flows(sample: Sample, step: int, estimate: Estimate) -> Iterator[np.ndarray] | None:
    """The reference flow (2, H, W) of every pair of frames `step` apart, in order; None where the prompt set names no
    reference.

    The reference is a .npy of float (K, 2, H, W), NaN where unknown, or a video of the same size
    and rate that is at least as long.

    Raises:
        ScoreError: the reference is missing or does not fit the video.
    """
    paths = references_of(sample)
    if not paths:
        return None
    (path,) = paths
    count = len(every(step, sample.info.frames)) - 1
    return _stored(path, sample, count) if path.suffix == ".npy" else _estimated(path, sample, step, estimate)


def _stored(path: Path, sample: Sample, count: int) -> Iterator[np.ndarray]:
    check_regular(path, ScoreError)
    try:
        flows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, OverflowError, MemoryError, RecursionError, SyntaxError) as error:
        raise ScoreError(path, LABEL, f"not a .npy file of numbers: {error}") from error
    if not isinstance(flows, np.ndarray):
        raise ScoreError(path, LABEL, "an archive of arrays, expected one .npy array")
    expected = (count, 2, sample.info.height, sample.info.width)
    if flows.shape != expected or flows.dtype.kind != "f":
        raise ScoreError(
            path, LABEL, f"{flows.dtype} {flows.shape}, expected floats {expected}: pairs, x and y, rows, columns"
        )
    return iter(flows)


def _estimated(path: Path, sample: Sample, step: int, estimate: Estimate) -> Iterator[np.ndarray]:
    try:
        info = probe(path)
    except VideoError as error:
        raise ScoreError(path, LABEL, error.what) from error
    own = sample.info
    if (info.width, info.height) != (own.width, own.height):
        raise ScoreError(
            path,
            LABEL,
            f"{info.width}x{info.height}, the video is {own.width}x{own.height}: errors in pixels need one size",
        )
    if abs(info.fps - own.fps) > FPS_TOLERANCE * own.fps:
        raise ScoreError(path, LABEL, f"{info.fps:g} fps, the video has {own.fps:g}: its motion per frame is another")
    if info.frames < own.frames:
        raise ScoreError(path, LABEL, f"{info.frames} frames, the video has {own.frames}")
    return _pairs(path, step, estimate)


def _pairs(path: Path, step: int, estimate: Estimate) -> Iterator[np.ndarray]:
    last: Frame | None = None
    try:
        for index, frame_HWC in frames(path):
            if index % step == 0:
                if last is not None:
                    yield estimate(last, frame_HWC)
                last = frame_HWC
    except VideoError as error:
        raise ScoreError(path, LABEL, error.what) from error

"""The frames a judge is shown of the last seconds of a video, at a low rate. Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eval.contract import Sample, ScoreError, Segment
from eval.watchers.segments import frames_of

MARK = "<|"  # special tokens of Qwen's models open with it
MIN_FRAMES = 2  # a temporal patch
EPS = 1e-6


@dataclass(frozen=True)
class JudgedFrames:
    """`indices` are frame numbers of the video; the clip is `total` frames from frame `start`."""

    indices: list[int]
    start: int
    total: int
    fps: float

    @property
    def own(self) -> list[int]:
        """Frame numbers within the clip."""
        return [index - self.start for index in self.indices]

    @property
    def times(self) -> list[float]:
        """Seconds within the clip."""
        return [index / self.fps for index in self.own]


def judged_frames(sample: Sample, rate: float, seconds: float | None = None) -> JudgedFrames:
    """The last `seconds` (None, or more than there are: all) at about `rate` frames per second, each at the middle of
    its slice.

    Raises:
        ScoreError: fewer than two frames.
    """
    info = sample.info
    begin = max(0.0, info.seconds - seconds) if seconds is not None else 0.0
    start = math.ceil(begin * info.fps - EPS)
    indices = [index for index in frames_of(Segment(begin, info.seconds, sample.prompt), info, rate) if index >= start]
    if len(indices) < MIN_FRAMES:
        raise ScoreError(
            sample.path, "frames", f"{len(indices)} shown of {info.frames}, a judge needs {MIN_FRAMES} or more"
        )
    return JudgedFrames(indices, start, info.frames - start, info.fps)


def prompt_of(sample: Sample, seconds: float | None = None) -> str:
    """The prompt the shown part is judged by: the sample's, of an interactive video the last segment's.

    Raises:
        ScoreError: none, or one that holds a special token's text.
    """
    prompt = sample.segments[-1].prompt if sample.segments and seconds is not None else sample.prompt
    if not prompt or MARK in prompt:
        raise ScoreError(
            sample.path,
            "prompt",
            f"holds a special token's text ({MARK}...)" if prompt else "missing, a judge needs one",
        )
    return prompt

"""The parts of a video that are scored on their own, and which frames stand for each. Free of torch.

Boundaries are times, so a part is the same at any frame rate.
"""

from __future__ import annotations

from eval.contract import Sample, ScoreError, Segment, VideoInfo


def parts(sample: Sample, seconds: float | None = None) -> tuple[Segment, ...]:
    """The prompt's segments, cut to the video; of a video with one prompt, windows of `seconds` (None: the whole), all
    with that prompt.

    The last window takes a rest shorter than half a window, so that a few frames more are no part of their own.

    Raises:
        ScoreError: a segment begins after the video's end.
    """
    length = sample.info.seconds
    if not sample.segments:
        count = 1 if seconds is None else max(1, int(length / seconds + 0.5))
        ends = [index * (seconds or 0.0) for index in range(1, count)] + [length]
        return tuple(Segment(start, end, sample.prompt) for start, end in zip([0.0, *ends[:-1]], ends, strict=True))
    late = next((segment for segment in sample.segments if segment.start >= length), None)
    if late is not None:
        raise ScoreError(sample.path, "segments", f"one begins at {late.start:g} s, the video ends at {length:g} s")
    return tuple(Segment(part.start, min(part.end, length), part.prompt) for part in sample.segments)


def frames_of(part: Segment, info: VideoInfo, rate: float) -> list[int]:
    """Frame numbers at about `rate` per second: the part in equal slices, the frame shown at the middle of each; at
    least one.

    Middles keep clear of the switch, which acts at the next block only.
    """
    count = max(1, round((part.end - part.start) * rate))
    step = (part.end - part.start) / count
    times = (part.start + (index + 0.5) * step for index in range(count))
    return sorted({min(int(time * info.fps), info.frames - 1) for time in times})

"""Entries: what is known of a video before its file is opened, and how an entry becomes a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from astro_cli.config.errors import AstroError
from eval.contract import Sample, Segment, VideoInfo
from eval.prompt_sets import Prompt, text_id

Severity = Literal["error", "warning"]
SHOWN = 10  # items of a finding that are named; the others are counted


class InputError(AstroError):
    """A folder of videos that cannot be scored as it is."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with the videos; one finding for all that have it.

    Attributes:
        severity: "error" would make the suite's numbers wrong or partial.
        file: the file, or the folder where there are several.
        key: what it is about: "name", "index", "fps", ...
        items: all files or names concerned, not only those that `what` names.
    """

    severity: Severity
    file: str
    key: str
    what: str
    hint: str = ""
    items: tuple[str, ...] = ()


def about(
    severity: Severity, folder: Path, key: str, what: str, items: Sequence[str], *, hint: str = ""
) -> list[Finding]:
    """One finding about these files of a folder, the first few of them named; none where there are no items."""
    if not items:
        return []
    if len(items) == 1:
        return [Finding(severity, items[0], key, what, hint, tuple(items))]
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return [
        Finding(
            severity, str(folder), key, f"{what} ({len(items)}): {', '.join(items[:SHOWN])}{more}", hint, tuple(items)
        )
    ]


@dataclass(frozen=True)
class Turn:
    """A prompt that takes over at a time, in frames or seconds: frames become seconds once the video's fps is known."""

    time: float
    unit: Literal["frames", "seconds"]
    prompt: str

    def seconds(self, fps: float) -> float:
        return self.time / fps if self.unit == "frames" else self.time


@dataclass(frozen=True)
class Entry:
    """A video and its prompt, before the file is opened.

    Attributes:
        index: which of the prompt's samples, from 0; None where nothing says it.
        segments: of the manifest or the prompt set; empty: see `turns`.
        turns: the prompts after the first; empty: one prompt throughout.
    """

    path: Path
    prompt_id: str
    prompt: str
    seed: int | None = None
    index: int | None = None
    segments: tuple[Segment, ...] = ()
    turns: tuple[Turn, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)

    def sample(self, info: VideoInfo, video_hash: str) -> Sample:
        """The sample to score. The last segment ends with the video.

        Raises:
            InputError: a segment begins after the video's end.
        """
        if (problem := self.problem(info)) is not None:
            raise problem
        clipped = tuple(
            Segment(segment.start, min(segment.end, info.seconds), segment.prompt) for segment in self._segments(info)
        )
        labels = dict(self.labels) if self.index is None else {"index": self.index, **self.labels}
        return Sample(self.path, video_hash, info, self.prompt_id, self.prompt, self.seed, clipped, labels)

    def problem(self, info: VideoInfo) -> InputError | None:
        """What keeps the video from being a sample: segments that no frame of it shows, or out of order."""
        segments = self._segments(info)
        late = next((segment for segment in segments if segment.start >= info.seconds), None)
        if late is not None:
            what = f"one begins at {late.start:g} s, the video has {info.seconds:g} s"
            return InputError(self.path, "segments", what, hint="make the whole video, or correct the times")
        if any(segment.end <= segment.start for segment in segments):
            return InputError(
                self.path,
                "switches",
                f"out of order at {info.fps:g} fps",
                hint="give all times in frames, or all in seconds",
            )
        return None

    def _segments(self, info: VideoInfo) -> tuple[Segment, ...]:
        return self.segments or _of_turns(self.prompt, self.turns, info)


def _of_turns(prompt: str, turns: Iterable[Turn], info: VideoInfo) -> tuple[Segment, ...]:
    begins = [(0.0, prompt), *((turn.seconds(info.fps), turn.prompt) for turn in turns)]
    ends = [*(start for start, _ in begins[1:]), max(info.seconds, begins[-1][0])]
    return (
        tuple(Segment(start, end, text) for (start, text), end in zip(begins, ends, strict=True))
        if len(begins) > 1
        else ()
    )


def entry_of(
    path: Path, prompt: Prompt, *, seed: int | None = None, index: int | None = None, turns: tuple[Turn, ...] = ()
) -> Entry:
    """A video of a prompt of a set: text, labels and, where the video has no switches of its own, segments are the
    set's.
    """
    segments = () if turns else prompt.segments
    return Entry(path, prompt.id, prompt.text, seed, index, segments, turns, prompt.labels)


def loose_entry(
    path: Path, text: str, *, seed: int | None = None, index: int | None = None, turns: tuple[Turn, ...] = ()
) -> Entry:
    """A video of a prompt that belongs to no set."""
    return Entry(path, text_id(text), text, seed, index, turns=turns)


@dataclass(frozen=True)
class Listing:
    """What a folder holds: its entries, what is wrong with those that are not among them, and how it was read."""

    folder: Path
    kind: Literal["manifest", "sample", "names"]
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]

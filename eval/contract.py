"""The contract between scorers and the evaluation: samples, watchers, scores and a scorer's declaration. Free of torch.

A scorer never opens a video. It is shown the frames one after the other, so a video is decoded once for all its
scorers. Each scorer keeps only the frames it needs, until its score is computed.
Dimensions: T frame, H, W pixel rows and columns.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from astro_cli.config.base import Config
from astro_cli.config.errors import EXIT_RUN, AstroError
from astro_cli.media.video import Frame, VideoInfo

Direction = Literal["up", "down"]


class ScoreError(AstroError):
    """A video that a scorer cannot score (too short, no prompt, a score that is not finite). The other videos go on;
    the suite is then partial.
    """

    exit_code = EXIT_RUN


@dataclass(frozen=True)
class MetricInfo:
    """One number per video.

    Attributes:
        id: "<scorer>.<metric>", e.g. "videoalign.mq"; of a scorer with one metric the scorer's own name, e.g. "clip".
        unit: what the number counts and its range, e.g. "cosine x 100", "pixels per frame", "0..1".
        text: one line for `astro eval list`.
        norm: how a learned score is normalised, a condition of its records; "": there is no choice.
    """

    id: str
    direction: Direction
    unit: str
    text: str
    norm: str = ""


@dataclass(frozen=True)
class Need:
    """Something a scorer cannot run without.

    `missing()` is "" where it is there, else what is missing and where to put it, for the user.
    """

    name: str
    missing: Callable[[], str]


def package(name: str, module: str, install: str) -> Need:
    """A Python package, looked for without importing it."""

    def missing() -> str:
        return "" if importlib.util.find_spec(module) is not None else f"package {name}: {install}"

    return Need(name, missing)


def weights(name: str, locate: Callable[[], Path | None], hint: str) -> Need:
    """A file or folder of weights; `hint` says what to put where."""

    def missing() -> str:
        return "" if locate() is not None else f"weights of {name}: {hint}"

    return Need(name, missing)


@dataclass(frozen=True)
class Segment:
    """A part of a video with its own prompt; `start` inclusive, `end` exclusive, in seconds."""

    start: float
    end: float
    prompt: str


@dataclass(frozen=True)
class Sample:
    """One video to score.

    Attributes:
        video_hash: sha256 of the file, hex.
        prompt_id: of the prompt set; samples that share it count as one prompt.
        seed: of the generation, None where unknown.
        segments: the switches of an interactive video; empty: one prompt throughout.
        labels: what else the prompt set says (VBench's `dimension` and `auxiliary_info`, the image of an I2V prompt),
            JSON values.
    """

    path: Path
    video_hash: str
    info: VideoInfo
    prompt_id: str
    prompt: str
    seed: int | None = None
    segments: tuple[Segment, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A value, finite, or None where the metric does not apply to the sample; `details` are JSON values kept beside
    it.
    """

    value: float | None
    details: Mapping[str, Any] = field(default_factory=dict)


class VideoWatcher(Protocol):
    """Watches one video. Every frame is shown once, in order."""

    def see(self, index: int, frame_HWC: Frame) -> None: ...

    def scores(self) -> dict[str, Score]:
        """One score per metric id of the scorer; called once, after the last frame.

        Raises:
            ScoreError: no score is possible.
        """
        ...


class Scorer(Protocol):
    """Ready to score: weights loaded."""

    def watch(self, sample: Sample) -> VideoWatcher:
        """A watcher for this video.

        Raises:
            ScoreError: the scorer cannot score it.
        """
        ...


class NetworkCache:
    """Networks shared by the scorers of one run: built once per key (file, form), whoever asks first."""

    def __init__(self) -> None:
        self._built: dict[tuple[Any, ...], Any] = {}

    def get(self, key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]


@dataclass(frozen=True)
class Declaration:
    """What `eval/metrics/<name>.py` holds as `SCORER`. Its top level imports no torch or transformers: `astro eval
    list` reads all.

    Attributes:
        metrics: what it scores, in the order of tables.
        config: everything that changes a number (frame sampling, norm, positions, crop), with the protocol's defaults.
            Hashed into every record.
        version: goes up when the code would give another number for the same config.
        needs: all of it; the scorer is ready when none is missing.
        config_needs: what this config needs besides (the networks that a suite's options bring in).
        reads: the files beside the video it reads for a sample (a reference, a start image); their content, not their
            name, is part of a score's key. Raises ScoreError where one is missing.
        files: the weights it will read under this config, hashed into every record; empty for weight-free metrics.
        build: the scorer; imports what is heavy.
        sees: whether it looks at frames; a video that no scorer needs to see is not decoded.
    """

    metrics: tuple[MetricInfo, ...]
    config: type[Config]
    version: int
    build: Callable[[Any, NetworkCache], Scorer]
    needs: tuple[Need, ...] = ()
    config_needs: Callable[[Any], tuple[Need, ...]] = lambda config: ()
    files: Callable[[Any], tuple[Path, ...]] = lambda config: ()
    reads: Callable[[Sample], tuple[Path, ...]] = lambda sample: ()
    sees: bool = True


def config_hash(declaration: Declaration, config: Config) -> str:
    """16 hex digits over the config and the version."""
    text = json.dumps({"version": declaration.version, **config.model_dump(mode="json")}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

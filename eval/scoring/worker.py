"""Scores videos: decodes each once and shows its frames to every scorer that still lacks it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from astro_cli.config.errors import AstroError
from astro_cli.models.hashes import remembered
from eval.contract import Frame, NetworkCache, Sample, Score, ScoreError, Scorer, VideoWatcher
from eval.records.video_scores import Key, SampleStore, ScoreLine, prompt_hash
from eval.scoring.scorers import ConfiguredScorer

Frames = Callable[[Sample], Iterator[tuple[int, Frame]]]  # a video's frames in order
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Failure:
    """A video a scorer could not score, and why."""

    video: str
    scorer: str
    what: str


@dataclass
class ScoredVideo:
    """What came of one video: a line per scorer that scored it, a failure per scorer that could not."""

    lines: dict[str, ScoreLine] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """One video and the names of the scorers that lack it."""

    sample: Sample
    scorers: tuple[str, ...]


def line_key(sample: Sample, configured: ConfiguredScorer) -> Key:
    """The key of this scorer's line for this video."""
    return (
        sample.video_hash,
        prompt_hash(sample, contents(sample, configured)),
        configured.name,
        configured.config_hash,
        configured.weights_hash,
    )


def contents(sample: Sample, configured: ConfiguredScorer) -> tuple[str, ...]:
    """Hashes of the files beside the video that the scorer reads. With an unreadable file, one marker; the video is
    then not scored.
    """
    try:
        return tuple(map(remembered, configured.declaration.reads(sample)))
    except (ScoreError, OSError):
        return (UNREADABLE,)


def plan(
    samples: Sequence[Sample],
    scorers: Sequence[ConfiguredScorer],
    store: SampleStore,
    applies: Callable[[Sample, ConfiguredScorer], bool],
) -> list[Work]:
    """The videos that some scorer lacks, in order; of equal ones with equal prompts the first.

    Args:
        applies: whether a scorer is meant for a video.
    """
    works, planned = [], set[Key]()
    for sample in samples:
        keys = {configured.name: line_key(sample, configured) for configured in scorers if applies(sample, configured)}
        lacking = tuple(name for name, key in keys.items() if key not in planned and store.find(key) is None)
        planned.update(keys.values())
        if lacking:
            works.append(Work(sample, lacking))
    return works


class ScoringWorker:
    """Scorers built when first needed, loaded shared between them. One per process."""

    def __init__(self, scorers: Sequence[ConfiguredScorer], frames: Frames, decoder: str) -> None:
        self.scorers, self.frames, self.decoder = (
            {configured.name: configured for configured in scorers},
            frames,
            decoder,
        )
        self.loaded = NetworkCache()
        self._scorers: dict[str, Scorer] = {}

    def scorer(self, name: str) -> Scorer:
        if name not in self._scorers:
            self._scorers[name] = self.scorers[name].build(self.loaded)
        return self._scorers[name]

    def score(self, work: Work) -> ScoredVideo:
        """Show the video to its scorers. A scorer that fails leaves the others alone; a video that cannot be decoded
        fails them all.
        """
        sample, scored, watchers = work.sample, ScoredVideo(), dict[str, VideoWatcher]()
        for name in work.scorers:
            try:
                watchers[name] = self.scorer(name).watch(sample)
            except ScoreError as error:
                scored.failures.append(_failure(sample, name, error))
        try:
            self._show(sample, watchers, scored)
        except AstroError as error:
            scored.failures += [_failure(sample, name, error) for name in watchers]
            return scored
        for name, watcher in watchers.items():
            try:
                scored.lines[name] = self._line(sample, self.scorers[name], watcher.scores())
            except ScoreError as error:
                scored.failures.append(_failure(sample, name, error))
        return scored

    def _show(self, sample: Sample, watchers: dict[str, VideoWatcher], scored: ScoredVideo) -> None:
        """Every frame to every watcher that wants frames; one that cannot go on is dropped."""
        eager = {name: watcher for name, watcher in watchers.items() if self.scorers[name].declaration.sees}
        count = 0
        for index, frame_HWC in self.frames(sample) if eager else ():
            count += 1
            for name, watcher in list(eager.items()):
                try:
                    watcher.see(index, frame_HWC)
                except ScoreError as error:
                    scored.failures.append(_failure(sample, name, error))
                    del eager[name], watchers[name]
        if eager and count != sample.info.frames:
            raise ScoreError(sample.path, "frames", f"{count} decoded, {sample.info.frames} announced")

    def _line(self, sample: Sample, configured: ConfiguredScorer, scores: Mapping[str, Score]) -> ScoreLine:
        expected = [info.id for info in configured.declaration.metrics]
        assert sorted(scores) == sorted(expected), f"{configured.name} declares {expected} and scores {sorted(scores)}"
        for metric, score in scores.items():
            if score.value is not None and not math.isfinite(score.value):
                raise ScoreError(sample.path, metric, f"found {score.value}, scores are finite")
        video_hash, prompt, scorer, config, weights = line_key(sample, configured)
        return ScoreLine(
            video=sample.path.name,
            video_hash=video_hash,
            prompt_id=sample.prompt_id,
            prompt_hash=prompt,
            seed=sample.seed,
            scorer=scorer,
            config_hash=config,
            weights_hash=weights,
            decoder=self.decoder,
            scores={metric: None if score.value is None else float(score.value) for metric, score in scores.items()},
            details=_plain({metric: dict(score.details) for metric, score in scores.items() if score.details}, sample),
        )


def _failure(sample: Sample, name: str, error: AstroError) -> Failure:
    return Failure(sample.path.name, name, ": ".join(part for part in (error.key, error.what) if part))


def _plain(details: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """Details as JSON.

    Raises:
        ScoreError: a number in them is not finite.
    """
    try:
        return json.loads(
            json.dumps(details, allow_nan=False, default=lambda value: value.tolist())
        )  # arrays and their scalars
    except ValueError as error:
        raise ScoreError(sample.path, "details", str(error)) from error

"""Averages scores of videos to scores of prompts, and counts the videos that a metric has and needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import fmean
from typing import Any

from eval.contract import MetricInfo, Sample
from eval.prompt_sets.base import PromptSet
from eval.records.video_scores import SampleStore
from eval.scoring.scorers import ConfiguredScorer
from eval.scoring.worker import line_key
from eval.suites.suite import Suite

Labels = Mapping[str, Any]


_Numbered = tuple[int | None, float | None]  # a video's index, where it counts, and its value


@dataclass(frozen=True)
class Order:
    """The prompts of an evaluation in order, and how many videos each must have.

    Attributes:
        needed: videos per prompt id.
        candidates: prompt id -> videos among which the needed ones are chosen, where a metric of the prompt chooses.
        limit: how many prompts were kept of more; None: all.
        numbered: where a video says its index, the needed ones are those with indices 0, 1, ...; else any are.
    """

    name: str
    hash: str
    needed: Mapping[str, int]
    labels: Mapping[str, Labels]
    limit: int | None = None
    candidates: Mapping[str, int] = field(default_factory=dict)
    numbered: bool = False


@dataclass(frozen=True)
class Outcome:
    """One metric over a folder.

    Attributes:
        scores: per prompt in order, in the unit of tables, None where the metric does not apply; None while videos are
            missing.
        mean: over the prompts that have scores, None where none has.
        configured: that gave it, None for a total.
        parts: what `present` and `expected` count.
        counted: of the present videos, those to which the metric applies; None for a total.
    """

    key: str
    info: MetricInfo
    present: int
    expected: int
    scores: list[float | None] | None
    mean: float | None
    configured: ConfiguredScorer | None = None
    scale: float = 1.0
    parts: str = "videos"
    counted: int | None = None

    @property
    def complete(self) -> bool:
        return self.scores is not None

    @property
    def coverage(self) -> str:
        return f"{self.present}/{self.expected}"


def order_of(
    suite: Suite,
    samples: Iterable[Sample],
    prompt_set: PromptSet | None,
    limit: int | None,
    per_prompt: int | None = None,
) -> Order:
    """The prompt set's own order; without a set the folder's prompts by id, all their videos needed.

    Args:
        samples: in the folder's order.
        limit: keep the first so many prompts of the set, or of the folder.
        per_prompt: videos per prompt; by default the suite's of a set, else all there are.
    """
    if prompt_set is not None:
        prompts = list(prompt_set.prompts)[:limit]
        needed = {prompt.id: per_prompt or suite.samples for prompt in prompts}
        labels = {prompt.id: prompt.labels for prompt in prompts}
        texts, name, whole = [(prompt.id, prompt.text) for prompt in prompts], prompt_set.name, len(prompt_set.prompts)
    else:
        by_id: dict[str, list[Sample]] = {}
        for sample in samples:
            by_id.setdefault(sample.prompt_id, []).append(sample)
        kept = dict(sorted(list(by_id.items())[:limit]))
        needed, labels = (
            {key: per_prompt or len(of_prompt) for key, of_prompt in kept.items()},
            {key: of_prompt[0].labels for key, of_prompt in kept.items()},
        )
        texts, name, whole = [(key, of_prompt[0].prompt) for key, of_prompt in kept.items()], "", len(by_id)
    limited = limit if len(texts) < whole else None
    hashed = prompt_set.hash if prompt_set is not None and limited is None else _hash(texts)
    numbered = prompt_set is not None and not per_prompt
    return Order(name, hashed, needed, labels, limited, {} if per_prompt else _candidates(suite, labels), numbered)


def _candidates(suite: Suite, labels: Mapping[str, Labels]) -> dict[str, int]:
    """The largest `candidates` of the metrics that each prompt is meant for."""
    specs = [spec for spec in suite.scorers if spec.candidates]
    counts = {}
    for prompt, own in labels.items():
        if candidates := [spec.candidates for spec in specs if meant_for(suite, spec.label, own)]:
            counts[prompt] = max(candidates)
    return counts


def within(samples: Iterable[Sample], order: Order) -> list[Sample]:
    """The samples that are scored: of each prompt as many as are needed, or looked at, by seed, index and name.

    In a numbered order a sample whose index is not below that count is none of them, however few there are.
    """
    most = {prompt: max(needed, order.candidates.get(prompt, 0)) for prompt, needed in order.needed.items()}
    left, kept = dict(most), []
    for sample in sorted(samples, key=_place):
        index = index_of(sample)
        past = order.numbered and index is not None and index >= most.get(sample.prompt_id, 0)
        if left.get(sample.prompt_id, 0) > 0 and not past:
            left[sample.prompt_id] -= 1
            kept.append(sample)
    return kept


def _place(sample: Sample) -> tuple[int, int, str]:
    index = index_of(sample)
    return -1 if sample.seed is None else sample.seed, -1 if index is None else index, sample.path.name


def index_of(sample: Sample) -> int | None:
    """Which of its prompt's samples it is, where its name or manifest says so."""
    index = sample.labels.get("index")
    return index if isinstance(index, int) else None


def meant_for(suite: Suite, key: str, labels: Labels) -> bool:
    """Whether a metric, by its name in records, is meant for a prompt with these labels."""
    named = labels.get(suite.select) if suite.select else None
    return named is None or key in named


def applies(suite: Suite, sample: Sample, configured: ConfiguredScorer) -> bool:
    """Whether any metric of the configured is meant for the sample."""
    return any(meant_for(suite, key, sample.labels) for key in configured.metrics)


def outcomes(
    suite: Suite, scorers: Sequence[ConfiguredScorer], samples: Sequence[Sample], order: Order, store: SampleStore
) -> list[Outcome]:
    """Every metric of the scorers over these samples, from the lines kept so far."""
    return [
        _outcome(suite, configured, key, info, samples, order, store)
        for configured in scorers
        for key, info in configured.metrics.items()
    ]


def _outcome(
    suite: Suite,
    configured: ConfiguredScorer,
    key: str,
    info: MetricInfo,
    samples: Sequence[Sample],
    order: Order,
    store: SampleStore,
) -> Outcome:
    meant = [prompt for prompt in order.needed if meant_for(suite, key, order.labels[prompt])]
    by_prompt: dict[str, list[_Numbered]] = {prompt: [] for prompt in meant}
    for sample in samples:
        line = store.find(line_key(sample, configured)) if sample.prompt_id in by_prompt else None
        if line is not None:
            by_prompt[sample.prompt_id].append((index_of(sample) if order.numbered else None, line.scores[info.id]))
    values = {
        prompt: _counting(by_index, order.needed[prompt], choose=bool(configured.spec.candidates))
        for prompt, by_index in by_prompt.items()
    }
    videos, expected = sum(map(len, values.values())), sum(order.needed[prompt] for prompt in meant)
    counted = sum(value is not None for of_prompt in values.values() for value in of_prompt)
    means = {prompt: mean_of(of_prompt) for prompt, of_prompt in values.items()}
    scores = [None if (mean := means.get(prompt)) is None else mean * configured.spec.scale for prompt in order.needed]
    present = [score for score in scores if score is not None]
    mean = fmean(present) if present else None
    return Outcome(
        key,
        info,
        videos,
        expected,
        scores if videos == expected else None,
        mean,
        configured,
        configured.spec.scale,
        counted=counted,
    )


def _counting(rows: Sequence[_Numbered], needed: int, *, choose: bool) -> list[float | None]:
    """The values of a prompt that count: of indices 0 to needed - 1, and the first of those without an index.

    With `choose`, the first `needed` videos to which the metric applies, before those to which it does not. What comes
    after a missing index is then not known to be among them, so it does not count; a video without an index fills one
    gap.
    """
    if not choose:
        return [value for index, value in rows if index is None or index < needed][:needed]
    loose = [value for index, value in rows if index is None]
    numbered = sorted(((index, value) for index, value in rows if index is not None), key=itemgetter(0))
    unbroken = [value for rank, (index, value) in enumerate(numbered) if index <= rank + len(loose)]
    return sorted((*unbroken, *loose), key=lambda value: value is None)[:needed]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of the values that are there; None where none is."""
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _hash(texts: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]

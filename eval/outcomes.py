"""From scores of videos to scores of prompts: which prompts a metric is for, how many videos it has of those it needs. Reads and writes no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from eval.metrics.base import MetricInfo, Sample
from eval.prompt_sets.base import PromptSet
from eval.samples import SampleStore
from eval.scoring import line_key
from eval.slots import Slot
from eval.suites import Suite

Labels = Mapping[str, Any]


@dataclass(frozen=True)
class Order:
    """The prompts of an evaluation in order, and how many videos each must have.

    Attributes:
        needed: videos per prompt id.
        limit: how many prompts were kept of more; None: all.
    """

    name: str
    hash: str
    needed: Mapping[str, int]
    labels: Mapping[str, Labels]
    limit: int | None = None


@dataclass(frozen=True)
class Outcome:
    """One metric over a folder.

    Attributes:
        scores: per prompt in order, in the unit of tables, None where the metric does not apply; None while videos are missing.
        mean: over the prompts that have scores, None where none has.
        slot: that gave it, None for a total.
        parts: what `found` and `expected` count.
    """

    key: str
    info: MetricInfo
    found: int
    expected: int
    scores: list[float | None] | None
    mean: float | None
    slot: Slot | None = None
    scale: float = 1.0
    parts: str = "videos"

    @property
    def complete(self) -> bool:
        return self.scores is not None

    @property
    def coverage(self) -> str:
        return f"{self.found}/{self.expected}"


def order_of(suite: Suite, samples: Iterable[Sample], prompt_set: PromptSet | None, limit: int | None, per_prompt: int | None = None) -> Order:
    """The prompt set's own order; without a set the folder's prompts by id, all their videos needed.

    Args:
        limit: keep the first so many prompts.
        per_prompt: videos per prompt; by default the suite's of a set, else all there are.
    """
    if prompt_set is not None:
        prompts = list(prompt_set.prompts)[:limit]
        needed = {prompt.id: per_prompt or suite.samples for prompt in prompts}
        labels = {prompt.id: prompt.labels for prompt in prompts}
        texts, name, whole = [(prompt.id, prompt.text) for prompt in prompts], prompt_set.name, len(prompt_set.prompts)
    else:
        by_id: dict[str, list[Sample]] = {}
        for sample in sorted(samples, key=lambda sample: sample.prompt_id):
            by_id.setdefault(sample.prompt_id, []).append(sample)
        kept = dict(list(by_id.items())[:limit])
        needed, labels = {key: per_prompt or len(found) for key, found in kept.items()}, {key: found[0].labels for key, found in kept.items()}
        texts, name, whole = [(key, found[0].prompt) for key, found in kept.items()], "", len(by_id)
    limited = limit if len(texts) < whole else None
    hashed = prompt_set.hash if prompt_set is not None and limited is None else _hash(texts)
    return Order(name, hashed, needed, labels, limited)


def within(samples: Iterable[Sample], order: Order) -> list[Sample]:
    """The samples that count: of each prompt the first as many as are needed, by seed, index and name."""
    left, kept = dict(order.needed), []
    for sample in sorted(samples, key=_place):
        if left.get(sample.prompt_id, 0) > 0:
            left[sample.prompt_id] -= 1
            kept.append(sample)
    return kept


def _place(sample: Sample) -> tuple[int, int, str]:
    return -1 if sample.seed is None else sample.seed, sample.labels.get("index", -1), sample.path.name


def meant_for(suite: Suite, key: str, labels: Labels) -> bool:
    """Whether a metric, by its name in records, is meant for a prompt with these labels."""
    named = labels.get(suite.select) if suite.select else None
    return named is None or key in named


def applies(suite: Suite, sample: Sample, slot: Slot) -> bool:
    """Whether any metric of the slot is meant for the sample."""
    return any(meant_for(suite, key, sample.labels) for key in slot.metrics)


def outcomes(suite: Suite, slots: Sequence[Slot], samples: Sequence[Sample], order: Order, store: SampleStore) -> list[Outcome]:
    """Every metric of the slots over these samples, from the lines kept so far."""
    return [_outcome(suite, slot, key, info, samples, order, store) for slot in slots for key, info in slot.metrics.items()]


def _outcome(suite: Suite, slot: Slot, key: str, info: MetricInfo, samples: Sequence[Sample], order: Order, store: SampleStore) -> Outcome:
    meant = [prompt for prompt in order.needed if meant_for(suite, key, order.labels[prompt])]
    values: dict[str, list[float | None]] = {prompt: [] for prompt in meant}
    for sample in samples:
        line = store.find(line_key(sample, slot)) if sample.prompt_id in values else None
        if line is not None:
            values[sample.prompt_id].append(line.scores[info.id])
    found, expected = sum(map(len, values.values())), sum(order.needed[prompt] for prompt in meant)
    means = {prompt: _mean(found) for prompt, found in values.items()}
    scores = [None if (mean := means.get(prompt)) is None else mean * slot.use.scale for prompt in order.needed]
    present = [score for score in scores if score is not None]
    return Outcome(key, info, found, expected, scores if found == expected else None, fmean(present) if present else None, slot, slot.use.scale)


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _hash(texts: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]

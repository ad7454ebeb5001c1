"""Turns VBench's own result files (`*_eval_results.json`, or a zip of them) into records, all at once or one after
another. `eval.vbench.result_files` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from astro_cli.config.errors import did_you_mean
from astro_cli.models.hashes import DIGEST_CHARACTERS, sha256
from eval.contract import MetricInfo
from eval.inputs.names import split_name
from eval.prompt_sets import PromptSet, prompt_set
from eval.records import store
from eval.scoring.outcome_writer import OutcomeWriter
from eval.scoring.outcomes import Order, Outcome, mean_of, meant_for, order_of
from eval.scoring.totals import PERCENT, TOTALS, gather, totals
from eval.suites.suite import Suite, load_suite
from eval.vbench import result_files
from eval.vbench.result_files import IngestError

_Scores = dict[str, dict[int, list[float | None]]]  # by prompt id and index; several where a video was cut into clips


@dataclass(frozen=True)
class Ingested:
    """What a file gave.

    Attributes:
        aggregates: the file's own number per dimension, in percent.
        missing: names of the videos that a dimension of the file lacks, and of the dimensions that a total lacks.
        unknown: videos that belong to no prompt of the suite.
        extra: videos of its prompts with no index, or one past the suite's samples; they do not count.
    """

    outcomes: list[Outcome]
    totals: list[Outcome]
    written: list[str]
    aggregates: dict[str, float]
    unknown: list[str]
    extra: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return all(outcome.complete for outcome in (*self.outcomes, *self.totals))


@dataclass
class _Sorted:
    """A dimension's scores, and the names of those that have no place."""

    scores: _Scores = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def ingest(file: Path, suite_name: str, arm: str, seed: int, results: Path) -> Ingested:
    """Record every dimension of the file that is complete, and the suite's totals once this file and the arm's earlier
    ones have all of their dimensions.

    Raises:
        IngestError: not such a file; a value that is NaN, no number, or outside its range; an unknown dimension; a
            video twice.
        IntegrityError: a dimension's number does not follow from its videos, or the arm has other records.

    **Deviations:** a dimension's number is the mean over prompts of the mean over videos, in percent. VBench weighs
    subject and background consistency and appearance style by frames; its aggregate is kept in the record's protocol.
    Booleans count 0 and 1. Of color VBench lists no video in which it finds no object: with its `*_full_info.json`
    beside the results these are known and have no score, without it they are missing.
    """
    suite = load_suite(suite_name)
    if not suite.prompts:
        raise IngestError(
            "--suite", suite_name, "has no official result files", hint="allowed: vbench, vbench-long, vbench-i2v"
        )
    data = result_files.read(file)
    known = {spec.scorer for spec in suite.scorers}.union(*(TOTALS[name].metrics for name in suite.totals.values()))
    if unknown := sorted(set(data) - known):
        raise IngestError(file, unknown[0], f"no dimension of {suite_name}", hint=did_you_mean(unknown[0], known))
    prompts = prompt_set(suite.prompts)
    order = order_of(suite, (), prompts, None)
    aggregates = {name: PERCENT * dimension.aggregate for name, dimension in data.items()}
    by_name = {name: _sort(file, name, dimension.videos, prompts, suite, order) for name, dimension in data.items()}
    of_metrics = [_outcome(suite, name, each.scores, order) for name, each in by_name.items()]
    digest = sha256(file)[:DIGEST_CHARACTERS]
    common = {
        "benchmark_version": suite.version,
        "prompt_set": prompts.name,
        "prompts": len(order.needed),
        "samples_per_prompt": suite.samples,
        "scorer": "official",
        "source_file": file.name,
        "videos": digest,
        "official_aggregates": aggregates,
        "limit": None,
    }
    writer = OutcomeWriter(results, suite_name, arm, seed, order, common)
    writer.check_scores(of_metrics)
    earlier = writer.recorded({outcome.key for outcome in of_metrics if not outcome.complete} | (known - data.keys()))
    gathered = gather(of_metrics, earlier)
    summed = totals(suite.totals, gathered)
    writer.check_scores(summed)
    missing = {
        name: lost
        for name, each in by_name.items()
        if (lost := _missing_videos(suite, name, each.scores, order, prompts))
    }
    complete = {outcome.key for outcome in gathered if outcome.complete}
    for total, name in suite.totals.items():
        if lost := [metric for metric in TOTALS[name].metrics if metric not in complete]:
            missing[total] = lost
    return Ingested(
        of_metrics,
        summed,
        writer.write(of_metrics, summed, of_totals=_sources(common, earlier)),
        aggregates,
        sorted({name for each in by_name.values() for name in each.unknown}),
        sorted({name for each in by_name.values() for name in each.extra}),
        missing,
    )


def _sources(common: Mapping[str, Any], earlier: Sequence[store.Record]) -> dict[str, Any]:
    """What a total's protocol says of the files it is from, in whichever order they came."""
    protocols = [common, *(record.protocol for record in earlier)]
    files = {protocol.get("videos", ""): protocol.get("source_file", store.UNKNOWN) for protocol in protocols}
    if len(files) == 1:
        return {}
    aggregates: dict[str, float] = {}
    for protocol in protocols:
        aggregates |= protocol.get("official_aggregates", {})
    return {
        "source_file": ", ".join(sorted(set(files.values()))),
        "videos": hashlib.sha256("".join(sorted(files)).encode()).hexdigest()[:DIGEST_CHARACTERS],
        "official_aggregates": dict(sorted(aggregates.items())),
    }


def _missing_videos(suite: Suite, dimension: str, by_prompt: _Scores, order: Order, prompts: PromptSet) -> list[str]:
    """Names of the videos that a dimension needs and has not."""
    return [
        f"{prompts.by_id[prompt].text}-{index}.mp4"
        for prompt, needed in order.needed.items()
        if meant_for(suite, dimension, order.labels[prompt])
        for index in range(needed)
        if index not in by_prompt.get(prompt, {})
    ]


def _sort(
    file: Path,
    dimension: str,
    videos: Iterable[result_files.VideoResult],
    prompts: PromptSet,
    suite: Suite,
    order: Order,
) -> _Sorted:
    """Every score under its prompt and index.

    Raises:
        IngestError: two videos of one prompt and index, in a suite that scores videos whole.
    """
    sorted_scores = _Sorted()
    in_clips = any("clips" in spec.config for spec in suite.scorers)
    for place, video in enumerate(videos):
        text, index = split_name(Path(f"{video.whole}.mp4" if in_clips else video.name))
        meant = [
            prompt
            for prompt in prompts.find(text) or prompts.find_other_case(text)
            if meant_for(suite, dimension, prompt.labels)
        ]
        if not meant:
            sorted_scores.unknown.append(video.name)
        elif index is None or index >= order.needed[meant[0].id]:
            sorted_scores.extra.append(video.name)
        else:
            scores = sorted_scores.scores.setdefault(meant[0].id, {}).setdefault(index, [])
            if scores and not in_clips:
                raise IngestError(
                    file, f"{dimension}[{place}].video_path", f"a second video of index {index} of {meant[0].text!r}"
                )
            scores.append(video.score)
    return sorted_scores


def _outcome(suite: Suite, dimension: str, by_prompt: _Scores, order: Order) -> Outcome:
    meant = [prompt for prompt in order.needed if meant_for(suite, dimension, order.labels[prompt])]
    there, expected = (
        sum(len(by_prompt.get(prompt, {})) for prompt in meant),
        sum(order.needed[prompt] for prompt in meant),
    )
    by_video: dict[str, list[float]] = {}
    for prompt, videos in by_prompt.items():
        by_video[prompt] = [mean for scores in videos.values() if (mean := mean_of(scores)) is not None]
    means = {prompt: PERCENT * fmean(values) for prompt, values in by_video.items() if values}
    info = MetricInfo(dimension, "up", "0..1", "official result")
    scores = [means.get(prompt) for prompt in order.needed] if there == expected else None
    mean, counted = fmean(means.values()) if means else None, sum(map(len, by_video.values()))
    return Outcome(dimension, info, there, expected, scores, mean, scale=PERCENT, counted=counted)

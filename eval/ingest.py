"""Takes over VBench's own result files (`*_eval_results.json`) as records. Measures nothing; refuses what is not a number.

The official file holds, per dimension, the aggregate and a list of {video_path, video_results}.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from astro_cli.config.errors import AstroError, did_you_mean
from eval import jsonl
from eval.inputs.names import split_name
from eval.metrics.base import MetricInfo
from eval.outcomes import Order, Outcome, meant_for, order_of
from eval.prompt_sets import PromptSet, prompt_set
from eval.suite_records import Filing
from eval.suites import Suite, load_suite
from eval.totals import PERCENT, TOTALS, totals

CLIP_SUFFIX = re.compile(r"_\d{3}$|_full$")  # VBench-Long's clips of a video
PER_VIDEO_PERCENT = frozenset({"imaging_quality"})  # 0..100 per video, 0..1 in the aggregate


class IngestError(AstroError):
    """A result file that is not VBench's, or holds values that are no scores."""


@dataclass(frozen=True)
class Ingested:
    """What a file gave.

    Attributes:
        aggregates: the file's own number per dimension, in percent.
        unknown: videos that belong to no prompt of the suite.
    """

    outcomes: list[Outcome]
    totals: list[Outcome]
    written: list[str]
    aggregates: dict[str, float]
    unknown: list[str]

    @property
    def complete(self) -> bool:
        return all(outcome.complete for outcome in (*self.outcomes, *self.totals))


def ingest(file: Path, suite_name: str, arm: str, seed: int, results: Path) -> Ingested:
    """Record every dimension of the file that is complete, and the suite's totals where all are there.

    Raises:
        IngestError: not such a file; a value that is NaN, no number, or of an unknown dimension.

    **Deviations:** a dimension's number is the mean over prompts of the mean over videos, in percent. VBench weighs subject and background
    consistency and appearance style by frames; its aggregate is kept in the record's protocol. Booleans count 0 and 1.
    """
    suite = load_suite(suite_name)
    if not suite.prompts:
        raise IngestError("--suite", suite_name, "has no official result files", hint="allowed: vbench, vbench-long, vbench-i2v")
    data = _read(file)
    known = {use.scorer for use in suite.scorers}.union(*(TOTALS[name].metrics for name in suite.totals.values()))
    if unknown := sorted(set(data) - known):
        raise IngestError(file, unknown[0], f"no dimension of {suite_name}", hint=did_you_mean(unknown[0], known))
    prompts = prompt_set(suite.prompts)
    order = order_of(suite, (), prompts, None)
    aggregates, strangers, found = {}, set[str](), []
    for dimension, (aggregate, videos) in data.items():
        aggregates[dimension] = PERCENT * aggregate
        found.append(_outcome(suite, dimension, _by_prompt(dimension, videos, prompts, suite, strangers), order))
    summed = totals(suite.totals, found)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    common = {
        "benchmark_version": suite.version, "prompt_set": prompts.name, "prompts": len(order.needed), "samples_per_prompt": suite.samples,
        "scorer": "official", "source_file": file.name, "videos": digest, "official_aggregates": aggregates, "limit": None,
    }  # fmt: skip
    filing = Filing(results, suite_name, arm, seed, order, common)
    return Ingested(found, summed, filing.write(found, summed), aggregates, sorted(strangers))


def _read(file: Path) -> dict[str, tuple[float, list[tuple[str, float]]]]:
    """Dimension -> (aggregate, (video path, score) per video), fractions."""
    try:
        data = jsonl.parse(file.read_bytes())
    except OSError as error:
        raise IngestError(file, "", f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        hint = "VBench writes NaN where a dimension found no video; evaluate that dimension again" if "found NaN" in str(error) else ""
        raise IngestError(file, "", f"no JSON of scores: {error}", hint=hint or "expected VBench's *_eval_results.json") from error
    if not isinstance(data, dict) or not data:
        raise IngestError(file, "", "expected a dimension or more, each [aggregate, [videos]]", hint="*_full_info.json is not the results")
    return {dimension: _dimension(file, dimension, entry) for dimension, entry in data.items()}


def _dimension(file: Path, dimension: str, entry: Any) -> tuple[float, list[tuple[str, float]]]:
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list) and entry[1]):
        raise IngestError(file, dimension, "expected [aggregate, [videos]] with a video or more")
    factor = 1 / PERCENT if dimension in PER_VIDEO_PERCENT else 1.0
    videos = []
    for place, video in enumerate(entry[1]):
        key = f"{dimension}[{place}]"
        if not isinstance(video, dict) or not isinstance(video.get("video_path"), str):
            raise IngestError(file, key, "expected video_path and video_results")
        videos.append((video["video_path"], factor * _number(file, f"{key}.video_results", video.get("video_results"))))
    return _number(file, f"{dimension}[0]", entry[0]), videos


def _number(file: Path, key: str, value: Any) -> float:
    """A finite number; true and false are 1 and 0 (dynamic degree, human action)."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    raise IngestError(file, key, f"found {json.dumps(value)[:40]}, expected a number or true or false")


def _by_prompt(
    dimension: str, videos: list[tuple[str, float]], prompts: PromptSet, suite: Suite, strangers: set[str]
) -> dict[str, dict[str, list[float]]]:
    """Prompt id -> video -> its scores (several where the video was cut into clips)."""
    found: dict[str, dict[str, list[float]]] = {}
    for path, score in videos:
        name = Path(path.replace("\\", "/"))
        stem = CLIP_SUFFIX.sub("", name.stem)
        text, _ = split_name(Path(f"{stem}.mp4"))
        meant = [prompt for prompt in prompts.find(text) or prompts.find_other_case(text) if meant_for(suite, dimension, prompt.labels)]
        if not meant:
            strangers.add(name.name)
        for prompt in meant[:1]:
            found.setdefault(prompt.id, {}).setdefault(stem, []).append(score)
    return found


def _outcome(suite: Suite, dimension: str, found: dict[str, dict[str, list[float]]], order: Order) -> Outcome:
    meant = [prompt for prompt in order.needed if meant_for(suite, dimension, order.labels[prompt])]
    counted = sum(min(len(found.get(prompt, {})), order.needed[prompt]) for prompt in meant)
    expected = sum(order.needed[prompt] for prompt in meant)
    means = {prompt: PERCENT * fmean(fmean(scores) for scores in videos.values()) for prompt, videos in found.items()}
    info = MetricInfo(dimension, "up", "0..1", "official result")
    scores = [means.get(prompt) for prompt in order.needed] if counted == expected else None
    return Outcome(dimension, info, counted, expected, scores, fmean(means.values()) if means else None, scale=PERCENT)

"""Runs a benchmark on arms and seeds and writes one record per metric; skips what is recorded already. Computes no score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from astro_cli.models.weights import digest
from astro_cli.training.rundir import environment
from eval import store
from eval.arms import Arm
from eval.benchmarks import shapes


def evaluate_arm(arm: Arm, seed: int, count: int, results: Path, progress: Callable[[int, int], None]) -> dict[str, float]:
    """Score one arm at one paired seed; returns the mean of every metric. Recorded scores of the same weights and prompts are reused."""
    known = _known(arm, seed, count, results)
    if known.keys() >= {"vq", "mq", "ta"}:
        return {metric: _mean(list(record.scores)) for metric, record in known.items()}
    scores = shapes.evaluate(arm, seed, shapes.held_out_prompts(count), progress)
    _record(arm, seed, count, results, scores)
    return {metric: _mean(values) for metric, values in scores.items()}


def time_arms(pairs: list[tuple[Arm, int]], count: int, results: Path) -> list[float]:
    """Mean frames per second of every (arm, seed), timed in turns; where one has no record yet, all are timed again, to be comparable."""
    known = [_known(arm, seed, count, results).get("throughput") for arm, seed in pairs]
    if all(known):
        return [_mean(list(record.scores)) for record in known if record]
    rates = shapes.throughput([arm for arm, _ in pairs])
    for (arm, seed), found in zip(pairs, rates, strict=True):
        _record(arm, seed, count, results, {"throughput": list(found)})
    return [_mean(list(found)) for found in rates]


def _known(arm: Arm, seed: int, count: int, results: Path) -> dict[str, store.Record]:
    """What is recorded of these weights on these prompts, by metric."""
    prompt_hash, weights_hash = shapes.prompt_set_hash(shapes.held_out_prompts(count)), digest(arm.path)
    path = store.record_path(results, shapes.NAME)
    records = store.latest(store.load([path]) if path.is_file() else [])
    wanted = (arm.name, seed, weights_hash, prompt_hash)
    return {r.metric: r for r in records if (r.arm, r.seed, r.weights_hash, r.prompt_set_hash) == wanted}


def _record(arm: Arm, seed: int, count: int, results: Path, scores: Mapping[str, list[float | None]]) -> None:
    here, prompt_hash = environment("cpu", seed), shapes.prompt_set_hash(shapes.held_out_prompts(count))
    for metric, values in scores.items():
        record = store.Record(
            benchmark=shapes.NAME, backbone="shapes", arm=arm.name, seed=seed, metric=metric, direction="up", scores=values,
            recipe_hash=arm.card["recipe_hash"], weights_hash=digest(arm.path), prompt_set_hash=prompt_hash,
            protocol=_protocol(arm, count, here), commit=here["commit"] or "unknown", dirty=bool(here["dirty"]),
        )  # fmt: skip
        store.append(store.record_path(results, shapes.NAME), record)


def _protocol(arm: Arm, prompts: int, here: dict[str, Any]) -> dict[str, Any]:
    video = arm.card["video"]
    return {
        "benchmark_version": shapes.VERSION, "num_frames": video["frames"], "fps": video["fps"], "resolution": [32, 32], "prompts": prompts,
        "sampling": arm.card["sampling"], "versions": here["versions"], "device": here["device"], "threads": torch.get_num_threads(),
    }  # fmt: skip


def _mean(values: list[float | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else float("nan")

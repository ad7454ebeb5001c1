"""Runs a benchmark on arms and seeds and writes one record per metric; skips what is recorded already. Computes no score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from astro_cli.models.weights import digest
from astro_cli.training.rundir import environment
from eval import store
from eval.arms import Arm
from eval.benchmarks import shapes


def evaluate_arm(arm: Arm, seed: int, count: int, results: Path, progress: Callable[[int, int], None]) -> dict[str, float]:
    """Evaluate one arm at one paired seed; returns the mean of every metric. Recorded scores of the same weights and prompts are reused."""
    prompts = shapes.held_out_prompts(count)
    prompt_hash, weights_hash = shapes.prompt_set_hash(prompts), digest(arm.path)
    path = store.record_path(results, shapes.NAME)
    known = [
        record for record in store.latest(store.load([path]) if path.is_file() else [])
        if (record.arm, record.seed, record.weights_hash, record.prompt_set_hash) == (arm.name, seed, weights_hash, prompt_hash)
    ]  # fmt: skip
    if {record.metric for record in known} >= {"vq", "mq", "ta", "throughput"}:
        return {record.metric: _mean(list(record.scores)) for record in known}
    scores: dict[str, list[float | None]] = {**shapes.evaluate(arm, seed, prompts, progress), "throughput": list(shapes.throughput(arm))}
    here = environment("cpu", seed)
    for metric, values in scores.items():
        record = store.Record(
            benchmark=shapes.NAME, backbone="shapes", arm=arm.name, seed=seed, metric=metric, direction="up", scores=values,
            recipe_hash=arm.card["recipe_hash"], weights_hash=weights_hash, prompt_set_hash=prompt_hash,
            protocol=_protocol(arm, len(prompts), here), commit=here["commit"] or "unknown", dirty=bool(here["dirty"]),
        )  # fmt: skip
        store.append(path, record)
    return {metric: _mean(values) for metric, values in scores.items()}


def _protocol(arm: Arm, prompts: int, here: dict[str, Any]) -> dict[str, Any]:
    video = arm.card["video"]
    return {
        "benchmark_version": shapes.VERSION, "num_frames": video["frames"], "fps": video["fps"], "resolution": [32, 32], "prompts": prompts,
        "sampling": arm.card["sampling"], "versions": here["versions"], "device": here["device"], "threads": torch.get_num_threads(),
    }  # fmt: skip


def _mean(values: list[float | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else float("nan")

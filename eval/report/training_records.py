"""Makes records of what a finished training run measured: peak memory, growth of the x0 norm, change of the reward,
and its curves, a score per epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from astro_cli.config.errors import RecordError
from astro_cli.models.hashes import digest
from eval.records import store
from eval.records.comparable import Cells
from eval.records.writer import RecordWriter
from eval.report import run_files
from eval.report.figures import read_metrics

BENCHMARKS: dict[store.Backbone, str] = {
    "shapes": "shapes",
    "wan": "memory",
}  # where Table 4a and Figure 8b's table look for them
PROMPTS = "training"  # a run draws its own: comparable are runs of one study
EDGE = 5  # epochs averaged at either end of a run
ROW_KEYS = ("student/x0_norm", "reward/total", "memory/saved_bytes")
CURVES: dict[str, store.Direction] = {  # kept whole, a score per epoch, so that figures need no run folder
    **dict.fromkeys(("gain/total", "gain/vq", "gain/mq", "gain/ta"), "up"),
    "student/x0_norm": "down",
}
DIRECTIONS: dict[str, store.Direction] = {"peak_memory": "down", "x0_norm_growth": "down", "reward_change": "up"}


def measures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """From the rows of an RL run's metrics.jsonl: bytes at the peak (the allocator's on CUDA, else those saved for
    backward), x0 norm of the last epochs over the first, and reward of the last epochs minus the first; epochs at the
    two ends do not overlap.

    Raises:
        RecordError: no rows, or rows of another kind of run.
    """
    if not rows:
        raise RecordError("metrics.jsonl", "", "no epoch is logged", hint="restore the file, or train the run again")
    for key in ROW_KEYS:
        if not all(_is_number(row.get(key)) for row in rows):
            raise RecordError("metrics.jsonl", key, "no number in an epoch: not the rows of an RL run")
    if not all(row["student/x0_norm"] > 0 for row in rows):
        raise RecordError("metrics.jsonl", "student/x0_norm", "found a norm that is not above 0")
    edge = min(EDGE, max(1, len(rows) // 2))
    first, last = rows[:edge], rows[-edge:]
    peak = "memory/peak_bytes" if all(_is_number(row.get("memory/peak_bytes")) for row in rows) else ROW_KEYS[-1]
    return {
        "peak_memory": max(row[peak] for row in rows),
        "x0_norm_growth": mean(row["student/x0_norm"] for row in last) / mean(row["student/x0_norm"] for row in first),
        "reward_change": mean(row["reward/total"] for row in last) - mean(row["reward/total"] for row in first),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def record_training(run: Path, results: Path) -> None:
    """Append the measures of a finished run to the records, unless they are there for these weights.

    Raises:
        RecordError: a file of the run is missing or damaged, or not all of its epochs are logged.
    """
    weights = run / "final" / "student.safetensors"
    card, environment = run_files.read_card(weights), run_files.read_environment(run)
    recipe = run_files.read_resolved(run)["recipe"]
    writer = RecordWriter(
        results,
        BENCHMARKS[card["backbone"]],
        card["backbone"],
        card["recipe"],
        card["seed"],
        card["recipe_hash"],
        digest(weights),
        PROMPTS,
    )
    known = {metric for metric, record in writer.own().items() if record.weights_hash == writer.weights_hash}
    rows = read_metrics(run / "metrics.jsonl")
    if len(rows) != (steps := _steps(recipe)):
        what = f"found {len(rows)} whole rows, the run has {steps} epochs"
        raise RecordError(run / "metrics.jsonl", "", what, hint="restore the file, or train the run again")
    values = {metric: [value] for metric, value in measures(rows).items()} | _curves(rows)
    for metric, scores in values.items():
        if metric in known:
            continue
        protocol = {
            "prompts": PROMPTS,
            "device": environment["device"],
            "versions": environment["versions"],
            "epochs": len(rows),
        }
        writer.append(writer.record(metric, (DIRECTIONS | CURVES)[metric], scores, protocol, environment))


def _curves(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The curves that every epoch logs."""
    curves: dict[str, list[float]] = {}
    for key in CURVES:
        values = [row[key] for row in rows if _is_number(row.get(key))]
        if len(values) == len(rows):
            curves[key] = values
    return curves


def curve_rows(records: Sequence[store.Record], arm: str) -> list[list[dict[str, Any]]]:
    """The kept curves of an arm as rows of metrics.jsonl, a seed each; empty where none are kept."""
    cells = Cells(records, "shapes")
    by_key = {key: cells.find(arm, key, BENCHMARKS["shapes"]) for key in CURVES}
    runs = []
    for seed in sorted(set[int]().union(*by_key.values())):
        own = {key: by_seed[seed].scores for key, by_seed in by_key.items() if seed in by_seed}
        epochs = range(max(map(len, own.values())))
        runs.append([{"stage": "rl", "step": epoch, **_at(own, epoch)} for epoch in epochs])
    return runs


def _at(curves: Mapping[str, Sequence[float | None]], epoch: int) -> dict[str, float | None]:
    return {key: values[epoch] for key, values in curves.items() if epoch < len(values)}


def _steps(recipe: dict[str, Any]) -> int:
    """Steps of all stages of a resolved recipe."""
    return sum(recipe["stages"][name]["steps"] for name in recipe["order"])

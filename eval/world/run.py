"""Runs a benchmark on arms and seeds and writes one record per metric. Recorded scores are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError, RecordError
from astro_cli.generate.arm import Arm, load_arm
from astro_cli.models.hashes import digest
from astro_cli.models.shapes_backbone import codec_file
from astro_cli.training.environment import environment
from eval.records import store
from eval.world import shapes
from eval.world.oracle_scores import prompt_set_hash
from eval.world.suites import WORLD_SUITES, SuiteModule, WorldSuite, world_suite

SHAPES = WORLD_SUITES[shapes.NAME]
RESOLUTION = [32, 32]
FALLS = frozenset({"kv_memory_growth"})  # the lower the better; of all others the higher


def evaluate_arm(
    arm: Arm, seed: int, count: int, results: Path, progress: Callable[[int, int], None], suite: WorldSuite = SHAPES
) -> dict[str, float]:
    """Score one arm at one paired seed; returns the mean of every metric. Recorded scores of the same weights and
    prompts are reused.

    Raises:
        CheckpointError: an arm of another backbone, or one that cannot make the suite's videos.
    """
    if arm.card["backbone"] != "shapes":
        raise CheckpointError(
            arm.path, "backbone", f"found {arm.card['backbone']!r}, {suite.name} scores arms of 'shapes'"
        )
    benchmark = suite.load()
    known = _known(benchmark, arm, seed, count, results)
    if known.keys() >= set(benchmark.METRICS):
        return {metric: _mean(list(record.scores)) for metric, record in known.items()}
    scores = benchmark.evaluate(arm, seed, benchmark.prompt_set(count), progress)
    # A process killed while it recorded leaves some.
    new = {metric: values for metric, values in scores.items() if metric not in known}
    _record(benchmark, arm, seed, count, results, new)
    return {metric: _mean(values) for metric, values in scores.items()}


def check_distinct(pairs: Iterable[tuple[Arm, int]]) -> None:
    """Refuse two arms whose records would be one's: a record knows its arm by the recipe's name and the seed.

    Raises:
        RecordError: naming both.
    """
    seen: dict[tuple[str, int], Arm] = {}
    for arm, seed in pairs:
        other = seen.setdefault((arm.name, seed), arm)
        if other is not arm:
            what = f"recorded as seed {seed} of one arm: {other.path} and {arm.path}"
            hint = "give each a --results folder of its own, or train under a recipe of another name"
            raise RecordError("--arm", arm.name, what, hint=hint)


def is_recorded(arm: str, seed: int, count: int | None, results: Path, name: str) -> bool:
    """Whether all that a suite measures of an arm at a seed (a trained one's own) is recorded; `count` prompts, or the
    suite's own number.
    """
    suite, loaded = world_suite(name), load_arm(arm)
    benchmark = suite.load()
    own = seed if loaded.seed is None else loaded.seed
    return _known(benchmark, loaded, own, count or suite.prompts, results).keys() >= set(benchmark.METRICS)


def time_arms(pairs: list[tuple[Arm, int]], count: int, results: Path, again: bool = False) -> list[float]:
    """Mean frames per second of every (arm, seed), timed in turns.

    Where one has no record yet, or `again` asks for it, all are timed, to be comparable.
    """
    benchmark = SHAPES.load()
    known = [_known(benchmark, arm, seed, count, results).get("throughput") for arm, seed in pairs]
    if all(known) and not again:
        return [_mean(list(record.scores)) for record in known if record]
    rates = shapes.throughput([arm for arm, _ in pairs])
    for (arm, seed), arm_rates in zip(pairs, rates, strict=True):
        _record(benchmark, arm, seed, count, results, {"throughput": list(arm_rates)})
    return [_mean(list(arm_rates)) for arm_rates in rates]


def _known(benchmark: SuiteModule, arm: Arm, seed: int, count: int, results: Path) -> dict[str, store.Record]:
    """What is recorded of these weights, decoded by this codec, on these prompts by this version of the benchmark, by
    metric. Older records do not name their codec.
    """
    path = store.record_path(results, benchmark.NAME)
    records = store.latest(store.load([path]) if path.is_file() else [])
    wanted = (arm.name, seed, digest(arm.path), prompt_set_hash(benchmark.prompt_set(count)))
    known = [r for r in records if (r.arm, r.seed, r.weights_hash, r.prompt_set_hash) == wanted]
    codec = _codec(arm)
    known = [r for r in known if r.protocol.get("codec", codec) == codec]
    return {r.metric: r for r in known if r.protocol.get("benchmark_version") == benchmark.VERSION}


def _codec(arm: Arm) -> str:
    """Hash of the codec's weights."""
    return digest(codec_file(arm.card["codec"]))


def _record(
    benchmark: SuiteModule, arm: Arm, seed: int, count: int, results: Path, scores: Mapping[str, list[float | None]]
) -> None:
    here, prompt_hash = environment("cpu", seed), prompt_set_hash(benchmark.prompt_set(count))
    path, weights_hash = store.record_path(results, benchmark.NAME), digest(arm.path)
    for old in store.latest(store.load([path]) if path.is_file() else []):
        if (old.arm, old.seed) == (arm.name, seed) and old.weights_hash != weights_hash and old.metric in scores:
            store.warn_replaced(path, old, "weights", old.weights_hash, weights_hash)
            break
    for metric, values in scores.items():
        record = store.Record(
            benchmark=benchmark.NAME,
            backbone="shapes",
            arm=arm.name,
            seed=seed,
            metric=metric,
            scores=values,
            direction="down" if metric in FALLS else "up",
            recipe_hash=arm.card["recipe_hash"],
            weights_hash=weights_hash,
            prompt_set_hash=prompt_hash,
            protocol=_protocol(benchmark, arm, count, here),
            **store.made_by(here),
        )
        store.append(path, record)


def _protocol(benchmark: SuiteModule, arm: Arm, prompts: int, here: dict[str, Any]) -> dict[str, Any]:
    return {
        "benchmark_version": benchmark.VERSION,
        "codec": _codec(arm),
        "num_frames": benchmark.num_frames(arm),
        "fps": arm.card["video"]["fps"],
        "resolution": RESOLUTION,
        "prompts": prompts,
        **benchmark.protocol(arm),
        "sampling": arm.card["sampling"],
        "versions": here["versions"],
        "device": here["device"],
        "threads": torch.get_num_threads(),
    }


def _mean(values: list[float | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else float("nan")

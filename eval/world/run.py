"""Runs a suite of the embedded world on arms and seeds and writes a record per metric. Recorded scores are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError, RecordError, StreamError
from astro_cli.generate.arm import Arm, load_arm
from astro_cli.generate.sizes import resized
from astro_cli.models.hashes import digest
from astro_cli.models.shapes_backbone import codec_file
from astro_cli.training.environment import environment
from eval.records import store
from eval.records.writer import RecordWriter
from eval.world import shapes
from eval.world.oracle_scores import prompt_set_hash
from eval.world.suites import FALLS, WORLD_SUITES, SuiteModule, WorldSuite, at, world_suite

SHAPES = WORLD_SUITES[shapes.NAME]
BACKBONE: store.Backbone = "shapes"
SMALLEST = 32  # pixels: below, the world's textures are not seen


def evaluate_arm(
    arm: Arm, seed: int, count: int, results: Path, progress: Callable[[int, int], None], suite: WorldSuite = SHAPES
) -> dict[str, float]:
    """Score one arm at one paired seed; returns the mean of every metric. Recorded scores of the same weights and
    prompts are reused.

    Raises:
        CheckpointError: an arm of another backbone, or one that cannot make the suite's videos.
    """
    if arm.card["backbone"] != BACKBONE:
        raise CheckpointError(
            arm.path, "backbone", f"found {arm.card['backbone']!r}, {suite.name} scores arms of {BACKBONE!r}"
        )
    module = suite.load()
    writer = _writer(module, arm, seed, count, results)
    known = _known(module, arm, writer)
    if known.keys() >= set(module.METRICS):
        return {metric: record.mean for metric, record in known.items()}
    scores = module.evaluate(arm, seed, module.prompt_set(count), progress)
    # A process killed while it recorded leaves some.
    new = {metric: values for metric, values in scores.items() if metric not in known}
    _record(module, arm, count, writer, new)
    return {metric: store.mean(values) for metric, values in scores.items()}


def recorded(arm: Arm, seed: int, count: int, results: Path, suite: WorldSuite) -> dict[str, store.Record]:
    """The records of an arm's weights at a seed on the first `count` prompts, by metric."""
    module = suite.load()
    return _known(module, arm, _writer(module, arm, seed, count, results))


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


def at_size(arm: Arm, size: str | None, suite: WorldSuite, *, stretch: bool | None = None) -> Arm:
    """The arm with videos of another size, recorded under a name of its own: NAME@48x48, and what is said of its
    positions behind it where that is not the card's.

    Raises:
        StreamError: a size that fits neither patch nor codec, no square, or too small to be measured.
        RecordError: a suite whose videos have one size.
    """
    other, trained = resized(arm, size, stretch=stretch), arm.card["video"].get("stretch", False)
    if size is None:
        return arm
    if not suite.sized:
        sized = ", ".join(name for name, each in WORLD_SUITES.items() if each.sized)
        raise RecordError("--size", size, f"{suite.name} scores videos of the trained size", hint=f"use {sized}")
    height, width = other.pixels
    if height != width or height < SMALLEST:
        what = f"expected a square of {SMALLEST} x {SMALLEST} pixels or more, as the world is one"
        raise StreamError("--size", size, what, hint="for example --size 48x48")
    if other.pixels == arm.pixels:
        return arm
    positions = "" if stretch in (None, trained) else "-stretched" if stretch else "-fixed"
    return replace(other, name=f"{arm.name}@{size}{positions}")


def is_recorded(arm: str, seed: int, count: int | None, results: Path, name: str) -> bool:
    """Whether all that a suite measures of an arm at a seed (a trained one's own) is recorded; `count` prompts, or the
    suite's own number.

    Args:
        name: of the suite, with a size behind it as grids have it.
    """
    suite_name, size = at(name)
    suite = world_suite(suite_name)
    loaded = at_size(load_arm(arm), size, suite)
    own = seed if loaded.seed is None else loaded.seed
    known = recorded(loaded, own, count or suite.prompts, results, suite)
    return known.keys() >= set(suite.load().METRICS)


def time_arms(
    pairs: list[tuple[Arm, int]], count: int, results: Path, *, again: bool = False, brief: bool = False
) -> list[float]:
    """Mean frames per second of every (arm, seed), timed in turns; of students also over a video that fills their
    windows, unless it is to be brief.

    Where one has no record yet, or `again` asks for it, all are timed, to be comparable.
    """
    module = SHAPES.load()
    writers = [_writer(module, arm, seed, count, results) for arm, seed in pairs]
    known = [_known(module, arm, writer) for (arm, _), writer in zip(pairs, writers, strict=True)]
    students = [place for place, (arm, _) in enumerate(pairs) if arm.streams]
    clips = [each.get("throughput") for each in known]
    runs = shapes.BRIEF_RUNS if brief else shapes.THROUGHPUT_RUNS
    streamed = brief or all("throughput_streaming" in known[place] for place in students)
    if all(record and len(record.scores) >= runs for record in clips) and streamed and not again:
        return [record.mean for record in clips if record]
    rates = shapes.throughput([arm for arm, _ in pairs], runs=runs)
    for (arm, _), writer, arm_rates in zip(pairs, writers, rates, strict=True):
        _record(module, arm, count, writer, {"throughput": list(arm_rates)})
    if students and not brief:
        streaming = [pairs[place][0] for place in students]
        long_rates = shapes.throughput(streaming, shapes.streaming_frames(streaming), shapes.STREAMING_RUNS)
        for place, arm, arm_rates in zip(students, streaming, long_rates, strict=True):
            _record(module, arm, count, writers[place], {"throughput_streaming": list(arm_rates)})
    return [store.mean(arm_rates) for arm_rates in rates]


def _writer(module: SuiteModule, arm: Arm, seed: int, count: int, results: Path) -> RecordWriter:
    """The writer of an arm's records on the first `count` prompts."""
    prompts = prompt_set_hash(module.prompt_set(count))
    hashes = arm.card["recipe_hash"], arm.weights_hash()
    return RecordWriter(results, module.NAME, BACKBONE, arm.name, seed, *hashes, prompts)


def _known(module: SuiteModule, arm: Arm, writer: RecordWriter) -> dict[str, store.Record]:
    """What is recorded of these weights, decoded by this codec, on these prompts by this version of the suite, by
    metric. Older records do not name their codec.
    """
    codec = _codec(arm)
    wanted = (writer.weights_hash, writer.prompt_set_hash, module.VERSION, codec, list(arm.pixels))
    known = {}
    for metric, record in writer.own().items():
        protocol = record.protocol
        made = protocol.get("benchmark_version"), protocol.get("codec", codec), protocol.get("resolution")
        if (record.weights_hash, record.prompt_set_hash, *made) == wanted:
            known[metric] = record
    return known


def _codec(arm: Arm) -> str:
    """Hash of the codec's weights."""
    return digest(codec_file(arm.card["codec"]))


def _record(
    module: SuiteModule, arm: Arm, count: int, writer: RecordWriter, scores: Mapping[str, list[float | None]]
) -> None:
    here = environment("cpu", writer.seed)
    others = [
        old for metric, old in writer.own().items() if metric in scores and old.weights_hash != writer.weights_hash
    ]
    if others:
        store.warn_replaced(writer.path, others[0], "weights", others[0].weights_hash, writer.weights_hash)
    for metric, values in scores.items():
        direction = "down" if metric in FALLS else "up"
        writer.append(writer.record(metric, direction, values, _protocol(module, arm, count, here), here))


def _protocol(module: SuiteModule, arm: Arm, prompts: int, here: dict[str, Any]) -> dict[str, Any]:
    return {
        "benchmark_version": module.VERSION,
        "codec": _codec(arm),
        "num_frames": arm.backbone.num_frames(module.num_frames(arm)),
        "fps": arm.card["video"]["fps"],
        "resolution": list(arm.pixels),
        "prompts": prompts,
        **module.protocol(arm),
        "sampling": arm.card["sampling"],
        "versions": here["versions"],
        "device": here["device"],
        "threads": torch.get_num_threads(),
    }

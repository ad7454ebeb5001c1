"""The page's footnotes from the records it shows: prompt sets and their conditions, arms with weights and commits,
versions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eval.records.protocol_text import video_text
from eval.records.store import CONDITION_KEYS, Record
from eval.report.curves import Run
from eval.report.page import Section, Text, TextTable

# Columns of their own; what else of CONDITION_KEYS a record has is named in "settings".
CONDITION_COLUMNS = ("prompts", "num_frames", "fps", "resolution")
CONDITION_HEAD = ("Benchmark", "Prompt set", "Prompts", "Videos", "Settings", "Seeds", "Device", "Metrics")
ARM_HEAD = ("Arm", "Benchmark", "Seeds", "Recipe hash, by seed", "Weights hash, by seed", "Commit", "Recorded")
RUN_HEAD = ("Run", "Recipe", "Seed", "Recipe hash", "Stages (steps)", "Commit")
HASH_SHOWN = 8  # digits: enough to tell weights or commits apart on a page
DATE = 10  # characters of an ISO time that are its day
WHAT = (
    "What the measured numbers were made with. Numbers of one table column share prompt set, frames, fps, "
    "resolution and settings; records that "
    "differ are refused. A commit marked `dirty` had changes that were not committed."
)


def protocol_section(records: Sequence[Record], runs: Sequence[Run] = ()) -> Section:
    """Conditions, arms and package versions of these records, and the runs whose curves are shown."""
    return Section(
        "Protocol",
        [
            Text(WHAT),
            TextTable(CONDITION_HEAD, _by(records, _condition, _condition_row), "Conditions"),
            TextTable(ARM_HEAD, _by(records, lambda record: (record.arm, record.benchmark), _arm_row), "Arms"),
            *([TextTable(RUN_HEAD, list(map(_run_row, runs)), "Training runs")] if runs else []),
            TextTable(("Package", "Version"), _versions(records), "Versions"),
        ],
    )


def _by(
    records: Iterable[Record], key: Callable[[Record], Any], row: Callable[[list[Record]], list[object]]
) -> list[list[object]]:
    """One row per key, in order of its text."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(json.dumps(key(record), default=str), []).append(record)
    return [row(groups[name]) for name in sorted(groups)]


def _condition(record: Record) -> tuple[object, ...]:
    return (record.benchmark, *record.conditions[: 1 + len(CONDITION_KEYS)])


def _condition_row(records: list[Record]) -> list[object]:
    first = records[0]
    protocol = first.protocol
    settings = [
        f"{key} {protocol[key]}"
        for key in CONDITION_KEYS
        if key not in CONDITION_COLUMNS and protocol.get(key) is not None
    ]
    return [
        first.benchmark,
        f"`{first.prompt_set_hash}`",
        protocol.get("prompts"),
        video_text(protocol),
        ", ".join(settings),
        _listed(record.seed for record in records),
        _listed(record.protocol.get("device") for record in records),
        len({record.metric for record in records}),
    ]


def _arm_row(records: list[Record]) -> list[object]:
    first = records[0]
    recipes, weights = ({r.seed: r.recipe_hash for r in records}, {r.seed: r.weights_hash for r in records})
    commits = dict.fromkeys(f"`{record.commit[:HASH_SHOWN]}`{' dirty' if record.dirty else ''}" for record in records)
    days = sorted({record.created[:DATE] for record in records})
    return [
        first.arm,
        first.benchmark,
        _listed(record.seed for record in records),
        _hashes(recipes),
        _hashes(weights),
        ", ".join(commits),
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
    ]


def _run_row(run: Run) -> list[object]:
    stages = ", ".join(
        f"{name} ({count} of {run.recipe['stages'][name]['steps']})" for name, count in run.stages.items()
    )
    commit = run.environment["commit"]
    shown = f"`{commit[:HASH_SHOWN]}`{' dirty' if run.environment['dirty'] else ''}" if commit else "unknown"
    return [run.name, run.recipe["name"], run.recipe["seed"], f"`{run.recipe_hash[:HASH_SHOWN]}`", stages, shown]


def _versions(records: Iterable[Record]) -> list[list[object]]:
    """Every version a package had, in the order of the records: a long study may have seen several."""
    packages: dict[str, dict[str, None]] = {}
    for record in records:
        for name, version in record.protocol.get("versions", {}).items():
            if version:
                packages.setdefault(name, {})[version] = None
    return [[name, ", ".join(versions)] for name, versions in sorted(packages.items())]


def _hashes(by_seed: dict[int, str]) -> str:
    """One hash where all seeds share it."""
    short = {seed: f"`{digest[:HASH_SHOWN]}`" for seed, digest in sorted(by_seed.items())}
    return (
        next(iter(short.values()))
        if len(set(short.values())) == 1
        else ", ".join(f"{seed}: {digest}" for seed, digest in short.items())
    )


def _listed(values: Iterable[object]) -> str:
    """Distinct values in order, numbers by size."""
    distinct = {value for value in values if value is not None}
    return ", ".join(str(value) for value in sorted(distinct, key=lambda value: (isinstance(value, str), value)))

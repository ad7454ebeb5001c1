"""Two arms against each other, metric by metric, over the prompts and seeds both were scored on.

Dimensions: S seeds, P prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from astro_cli.config.base import Config
from astro_cli.config.errors import IntegrityError, RecordError, did_you_mean
from eval.records.comparable import EVALUATE_AGAIN, BySeed, Cells, differs, paired
from eval.records.stats import has_interval, independent_units, paired_difference
from eval.records.store import BACKBONES, Backbone, Direction, Record, load_results

HALF = 0.5  # of a win: a tie


class Comparison(Config):
    """One metric of B beside A; numbers are None where `note` says why there are none.

    Attributes:
        difference: mean over prompts and seeds of B - A, with its 95 % interval over both;
            of one prompt under one seed there is none.
        win_rate: share of pairs where B is better, in the metric's direction; a tie is half.
        n: pairs.
        prompts: independent ones among them.
    """

    benchmark: str
    backbone: Backbone
    metric: str
    direction: Direction
    mean_a: float | None = None
    mean_b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    win_rate: float | None = None
    n: int = 0
    prompts: int = 0
    seeds: int = 0
    note: str = ""


def side(name: str, results: Path) -> tuple[str, list[Record]]:
    """An arm and its records: a results folder that holds one arm, or an arm of `results`.

    Raises:
        RecordError: no such arm, or a folder with several.
    """
    folder = Path(name)
    if (folder / "records").is_dir():
        records = load_results(folder)
        arms = sorted({record.arm for record in records})
        if len(arms) != 1:
            hint = "name two arms, with --results for their folder"
            raise RecordError(
                name, "records", f"holds {len(arms)} arms ({', '.join(arms[:5])}), expected one", hint=hint
            )
        return arms[0], records
    records = load_results(results)
    of_arm = [record for record in records if record.arm == name]
    if not of_arm:
        arms = {record.arm for record in records}
        hint = (
            did_you_mean(name, arms)
            if arms
            else f"no records in {results}; `astro eval SUITE DIR --name ARM` makes them"
        )
        raise RecordError("compare", name, f"neither a results folder nor an arm of {results}", hint=hint)
    return name, of_arm


def compare(arm_a: str, a: Iterable[Record], arm_b: str, b: Iterable[Record]) -> list[Comparison]:
    """B against A in every metric both have, by benchmark and name.

    Raises:
        RecordError: they share no metric.
        IntegrityError: no metric was measured under the same protocol.
    """
    rows, sides = [], (list(a), list(b))
    for backbone in BACKBONES:
        cells = [Cells(records, backbone) for records in sides]
        shared = _measured(sides[0], backbone) & _measured(sides[1], backbone)
        for benchmark, metric in sorted(shared):
            by_seed = [of_arm.find(arm, metric, benchmark) for of_arm, arm in zip(cells, (arm_a, arm_b), strict=True)]
            if all(by_seed):
                rows.append(_compare(benchmark, backbone, metric, dict(zip(("A", "B"), by_seed, strict=True))))
    if not rows:
        raise RecordError(
            "compare",
            f"{arm_a}, {arm_b}",
            "share no metric of a whole evaluation",
            hint="evaluate both under the same suite",
        )
    if all(row.note for row in rows):
        raise IntegrityError(
            "compare",
            f"{arm_a}, {arm_b}",
            f"nothing can be compared: {'; '.join(dict.fromkeys(row.note for row in rows))}",
            hint=EVALUATE_AGAIN,
        )
    return rows


def _compare(benchmark: str, backbone: Backbone, metric: str, sides: Mapping[str, BySeed]) -> Comparison:
    a, b = sides.values()
    direction = next(iter(a.values())).direction
    pair = paired(a, b)
    if pair is None:
        return Comparison(
            benchmark=benchmark, backbone=backbone, metric=metric, direction=direction, note=_why_not(sides)
        )
    a_SP, b_SP = pair
    difference_SP = b_SP - a_SP
    interval = paired_difference(a_SP, b_SP)
    low, high = (interval.low, interval.high) if has_interval(difference_SP) else (None, None)
    absent_SP = np.isnan(difference_SP)
    return Comparison(
        benchmark=benchmark,
        backbone=backbone,
        metric=metric,
        direction=direction,
        mean_a=float(a_SP[~absent_SP].mean()),
        mean_b=float(b_SP[~absent_SP].mean()),
        difference=interval.mean,
        low=low,
        high=high,
        win_rate=win_rate(difference_SP[~absent_SP], direction),
        n=int((~absent_SP).sum()),
        prompts=independent_units(difference_SP),
        seeds=interval.n,
    )


def _why_not(sides: Mapping[str, BySeed]) -> str:
    """What keeps two sides from being paired, with what each has."""
    (name_a, a), (name_b, b) = sides.items()
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return f"no seed of both: {name_a} has {_listed(a)}, {name_b} has {_listed(b)}"
    first, second = a[shared[0]], b[shared[0]]
    if first.conditions != second.conditions:
        return f"another protocol: {name_a} has {differs(first, second)}, {name_b} has {differs(second, first)}"
    return "no prompt has a score in both"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def win_rate(differences: np.ndarray, direction: Direction) -> float:
    """Share of differences on the better side; 0 counts half."""
    gains = differences if direction == "up" else -differences
    return float((gains > 0).mean() + HALF * (gains == 0).mean())


def _measured(records: Iterable[Record], backbone: Backbone) -> set[tuple[str, str]]:
    """Benchmarks and metrics that these records hold of a backbone."""
    return {(record.benchmark, record.metric) for record in records if record.backbone == backbone}

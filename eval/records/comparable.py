"""Finds the comparable records behind one number: of an arm and metric, on one backbone and benchmark.

Dimensions: S seeds, P prompts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from astro_cli.config.errors import IntegrityError, RecordError, did_you_mean
from eval.records.store import BACKBONES, Backbone, Record, latest

BySeed = dict[int, Record]
EVALUATE_AGAIN = "evaluate both with the same prompts and settings, or keep the studies in separate --results folders"


def check_backbone(name: str) -> Backbone:
    for backbone in BACKBONES:
        if name == backbone:
            return backbone
    raise RecordError(
        "--backbone", name, f"unknown backbone, allowed: {', '.join(BACKBONES)}", hint=did_you_mean(name, BACKBONES)
    )


class Cells:
    """The newest records of one backbone, by arm and metric.

    Those of evaluations cut short with --limit are left out.
    """

    def __init__(self, records: Iterable[Record], backbone: Backbone) -> None:
        self.backbone: Backbone = backbone
        self._by_cell: dict[tuple[str, str], list[Record]] = {}
        whole = [record for record in records if record.backbone == backbone and record.limit is None]
        self._place = {record.key: place for place, record in enumerate(whole)}
        for record in latest(whole):
            self._by_cell.setdefault((record.arm, record.metric), []).append(record)

    def find(self, arm: str, metric: str, benchmark: str | None) -> BySeed:
        """Comparable records by seed: those made under the conditions of the newest one.

        Raises:
            RecordError: no benchmark is asked for and the records are of several.
        """
        matching = [r for r in self._by_cell.get((arm, metric), []) if benchmark in (None, r.benchmark)]
        if not matching:
            return {}
        if len(benchmarks := sorted({record.benchmark for record in matching})) > 1:
            hint = "name one as `benchmark` in the TOML of the table or claim"
            raise RecordError(arm, metric, f"records of several benchmarks: {', '.join(benchmarks)}", hint=hint)
        newest = max(matching, key=lambda record: self._place[record.key])
        kept = {record.seed: record for record in matching if record.conditions == newest.conditions}
        return dict(sorted(kept.items()))


def common_seeds(a: BySeed, b: BySeed) -> list[int]:
    """Seeds that both have under the same conditions."""
    return [seed for seed in a if seed in b and a[seed].conditions == b[seed].conditions]


def paired(a: BySeed, b: BySeed) -> tuple[np.ndarray, np.ndarray] | None:
    """(S, P) scores of both on the seeds both have under the same conditions; None where there is no such seed."""
    seeds = common_seeds(a, b)
    if not seeds:
        return None
    a_SP, b_SP = np.split(matrix([a[seed] for seed in seeds] + [b[seed] for seed in seeds]), 2)
    return None if np.isnan(b_SP - a_SP).all() else (a_SP, b_SP)


def matrix(records: Iterable[Record]) -> np.ndarray:
    """(S, P) scores, NaN for null; (0, 0) of no records.

    Raises:
        RecordError: records of one prompt set with different numbers of scores.
    """
    listed = list(records)
    lengths = {len(record.scores) for record in listed}
    if len(lengths) > 1:
        what = (
            f"{listed[0].metric}: records of one prompt set hold {' and '.join(str(n) for n in sorted(lengths))} scores"
        )
        raise RecordError(listed[0].arm, "", what, hint="evaluate these seeds again")
    return np.array([record.scores for record in listed], dtype=float).reshape(len(listed), max(lengths, default=0))


def refuse_mixed(where: str, key: str, cells: Mapping[str, BySeed], varies: Collection[str] = ()) -> None:
    """Refuses a column whose cells were measured under different protocols or prompts, with an IntegrityError that
    names two.

    Args:
        varies: entries of the protocol that may differ, since the rows are about them.
    """
    firsts = [(name, next(iter(by_seed.values()))) for name, by_seed in cells.items() if by_seed]
    for name, record in firsts[1:]:
        if record.conditions_but(varies) != firsts[0][1].conditions_but(varies):
            what = (
                f"mixes protocols: {firsts[0][0]} has {differs(firsts[0][1], record)}, {name} has "
                f"{differs(record, firsts[0][1])}"
            )
            raise IntegrityError(where, key, what, hint=EVALUATE_AGAIN)


def differs(record: Record, other: Record, keys: Iterable[str] | None = None) -> str:
    """What of the record's conditions is not the other's; of `keys`, by default all."""
    compared = record.condition_keys if keys is None else keys
    differing = [
        f"{key} {record.protocol.get(key)}" for key in compared if record.protocol.get(key) != other.protocol.get(key)
    ]
    if record.prompt_set_hash != other.prompt_set_hash:
        differing.append(f"prompt set {record.prompt_set_hash}")
    return ", ".join(differing)

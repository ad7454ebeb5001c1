"""Refuses a total that does not cover the same prompts and videos as its parts."""

from __future__ import annotations

from functools import cache

from astro_cli.config.errors import IntegrityError
from eval.records.comparable import EVALUATE_AGAIN, BySeed, Cells, differs
from eval.scoring.totals import TOTALS
from eval.suites.suite import list_suites, load_suite

# Of a record's conditions, those that a total shares with its parts: its scorer is all of theirs.
VIDEO_KEYS = ("num_frames", "fps", "resolution", "prompts", "samples_per_prompt")


def refuse_unlike_parts(where: str, key: str, total: BySeed, cells: Cells) -> None:
    """Refuses a total whose parts are of other prompts or videos, with an IntegrityError that names both. Other metrics
    pass.

    Args:
        where: the table.
        key: the cell.
        total: the cell's records.
        cells: where the parts are looked up.
    """
    for record in list(total.values())[:1]:  # the others were made under the same conditions
        for part in parts(record.benchmark, record.metric):
            of_part = cells.find(record.arm, part, record.benchmark)
            other = next(iter(of_part.values()), record)
            if difference := differs(record, other, VIDEO_KEYS):
                what = f"{record.metric} has {difference}, its part {part} has {differs(other, record, VIDEO_KEYS)}"
                raise IntegrityError(where, key, what, hint=EVALUATE_AGAIN)


@cache
def parts(benchmark: str, metric: str) -> tuple[str, ...]:
    """The metrics behind a total of a suite, and the totals of fewer of them; of a metric that is no total: ()."""
    names = load_suite(benchmark).totals if benchmark in list_suites() else {}
    if metric not in names:
        return ()
    metrics = TOTALS[names[metric]].metrics
    smaller = [key for key, name in names.items() if set(TOTALS[name].metrics) < set(metrics)]
    return (*smaller, *metrics)

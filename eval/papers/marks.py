"""Which measured cells of a column are the best and the second: only where the paired differences can tell.

Dimensions: S seeds, P prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from eval.papers.published import ColumnDirection
from eval.records.comparable import BySeed, matrix, paired
from eval.records.stats import may_decide, paired_difference

Mark = Literal["best", "second", ""]
MIN_FOR_SECOND = 3  # of two the second is also the last


def measured_marks(cells: Mapping[str, BySeed], direction: ColumnDirection) -> dict[str, Mark]:
    """Marks by row of one column and group; rows without records count for nothing.

    The best has no mark unless its paired difference from every other row excludes 0; rows with the same scores share
    a mark.
    """
    sign = {"up": 1, "down": -1, "none": 0}[direction]
    means = {}
    for row, by_seed in cells.items():
        scores_SP = matrix(by_seed.values())
        if not np.isnan(scores_SP).all():
            means[row] = sign * float(np.nanmean(scores_SP))
    ordered = sorted(means, key=lambda row: -means[row])
    if not sign or len(ordered) < 2:
        return {}
    tops = _same(ordered, cells)
    rest = [row for row in ordered if row not in tops]
    if not rest or not _all_beat(tops, rest, cells, sign):
        return {}
    marks: dict[str, Mark] = dict.fromkeys(tops, "best")
    seconds = _same(rest, cells)
    last = [row for row in rest if row not in seconds]
    if len(ordered) >= MIN_FOR_SECOND and _all_beat(seconds, last, cells, sign):
        marks |= dict.fromkeys(seconds, "second")
    return marks


def _same(ordered: list[str], cells: Mapping[str, BySeed]) -> list[str]:
    """The first row, and those after it that have its very scores."""
    return [row for row in ordered if row == ordered[0] or _difference(cells[row], cells[ordered[0]]) == (0.0, 0.0)]


def _all_beat(winners: list[str], others: list[str], cells: Mapping[str, BySeed], sign: int) -> bool:
    pairs = [(winner, other) for winner in winners for other in others]
    return all(_beats(cells[winner], cells[other], sign) for winner, other in pairs)


def _beats(a: BySeed, b: BySeed, sign: int) -> bool:
    bounds = _difference(b, a)
    return bounds is not None and min(sign * bound for bound in bounds) > 0


def _difference(b: BySeed, a: BySeed) -> tuple[float, float] | None:
    """The ends of the interval of a - b; None where they cannot be compared, or too few pairs say anything."""
    pair = paired(b, a)
    if pair is None or not may_decide(pair[1] - pair[0]):
        return None
    _, low, high, _ = paired_difference(*pair)
    return low, high

"""Likert ratings: mean and share of high scores per arm and criterion, and arms compared on the items they share. Reads
CSV or JSON lines.

Dimensions: S raters, P items.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError
from eval.human import gsb
from eval.human.annotations import SHOWN, AnnotationError, read_rows, wilson
from eval.records.stats import mean_interval

SCORE, CRITERION, ARM, ITEM, RATER = "score", "criterion", "arm", "item", "rater"

Groups = dict[tuple[str, str], dict[str, list[float]]]  # arm and criterion -> item -> its ratings
Units = dict[tuple[str, str], dict[tuple[str, str], list[float]]]  # criterion and arm -> item and rater -> ratings


class Likert(Config):
    """Ratings of one arm under one criterion.

    Attributes:
        low: of the mean's 95 % interval, as `high`.
        n: ratings.
        items: the clusters of the mean's interval.
        share: of the ratings that are `threshold` or more, 0..1, with its Wilson interval.
    """

    arm: str
    criterion: str
    mean: float
    low: float
    high: float
    n: int
    items: int
    threshold: int
    share: float
    share_low: float
    share_high: float


class Paired(Config):
    """One arm against another under one criterion, on what both were rated for.

    Attributes:
        wins: pairs in which `arm` is rated higher than `other`.
        win_rate: wins / (wins + losses), with its Wilson interval; None where all are ties.
        p: two-sided sign test of wins against losses.
    """

    criterion: str
    arm: str
    other: str
    wins: int
    ties: int
    losses: int
    win_rate: float | None
    win_rate_low: float | None
    win_rate_high: float | None
    p: float


@dataclass(frozen=True)
class Ratings:
    """All of a file."""

    arms: list[Likert]
    pairs: list[Paired]


def top_half(scale: tuple[int, int]) -> int:
    """The lowest score above the middle: 3 of 1 to 4, 4 of 1 to 5."""
    return sum(scale) // 2 + 1


def read(path: Path, scale: tuple[int, int], threshold: int | None = None) -> Ratings:
    """Summaries of a file with the columns `criterion` and `score`, and if it likes `arm`, `item` (the video: ratings
    of one item are one cluster) and `rater`.

    Args:
        scale: lowest and highest score, e.g. (1, 4) in Reward Forcing (arXiv 2512.04678), Table 4.
        threshold: from which score on a rating counts as high; by default the top half of the scale.

    Raises:
        AnnotationError: no such column or file, or a score that is no whole number of the scale.
        RecordError: a threshold that every rating of the scale reaches, or none.

    **Deviations:** the paper prints means only. Intervals and tests are ours: the mean's is Student's over items, each
    rating an item of its own where no item is named; the share's takes ratings as independent, the sign test pairs,
    which is too sure of itself where one item has many raters.
    """
    high = top_half(scale) if threshold is None else threshold
    if not scale[0] < high <= scale[1]:
        raise RecordError(
            "--threshold", str(high), f"allowed: whole numbers {scale[0] + 1} to {scale[1]}", hint="see --scale"
        )
    groups: Groups = {}
    units: Units = {}
    for line, cells in read_rows(path, (CRITERION, SCORE)):
        score = _score(path, line, cells[SCORE], scale)
        arm, criterion, item = cells.get(ARM, ""), cells[CRITERION], cells.get(ITEM, "")
        groups.setdefault((arm, criterion), {}).setdefault(item or f"line {line}", []).append(score)
        if item:
            units.setdefault((criterion, arm), {}).setdefault((item, cells.get(RATER, "")), []).append(score)
    return Ratings(
        [_summarise(arm, criterion, items, high, scale) for (arm, criterion), items in groups.items()], _pairs(units)
    )


def _score(path: Path, line: int, text: str, scale: tuple[int, int]) -> int:
    if re.fullmatch("[0-9]{1,9}", text) and scale[0] <= int(text) <= scale[1]:
        return int(text)
    raise AnnotationError(
        path,
        f"line {line}",
        f"{SCORE}: found {text[:SHOWN]!r}, allowed: whole numbers {scale[0]} to {scale[1]}",
        hint="see --scale",
    )


def _summarise(
    arm: str, criterion: str, items: Mapping[str, list[float]], threshold: int, scale: tuple[int, int]
) -> Likert:
    """The mean is over ratings, its interval over items with all their ratings and within the scale."""
    most, n = max(map(len, items.values())), sum(map(len, items.values()))
    scores_SP = np.array([[*ratings, *[math.nan] * (most - len(ratings))] for ratings in items.values()]).T
    low, high = item_interval(scores_SP)
    reached = int((scores_SP >= threshold).sum())
    share_low, share_high = wilson(reached, n)
    return Likert(
        arm=arm,
        criterion=criterion,
        mean=float(np.nanmean(scores_SP)),
        low=max(low, scale[0]),
        high=min(high, scale[1]),
        n=n,
        items=len(items),
        threshold=threshold,
        share=reached / n,
        share_low=share_low,
        share_high=share_high,
    )


def _pairs(units: Units) -> list[Paired]:
    """Every two arms with something in common under a criterion, in the order of the file."""
    pairs = []
    for (criterion, arm), (again, other) in itertools.combinations(units, 2):
        shared = units[criterion, arm].keys() & units[again, other].keys() if criterion == again else ()
        if shared:
            pairs.append(
                _paired(
                    criterion,
                    arm,
                    other,
                    [_difference(units[criterion, arm][key], units[criterion, other][key]) for key in shared],
                )
            )
    return pairs


def _difference(ratings: list[float], others: list[float]) -> float:
    """Several ratings of one item (by one rater, where raters are named) count as their mean: raters without names
    cannot be paired.
    """
    return fmean(ratings) - fmean(others)


def _paired(criterion: str, arm: str, other: str, differences: list[float]) -> Paired:
    wins, losses = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    ties = len(differences) - wins - losses
    judged = gsb.summarise(criterion, wins, ties, losses)
    return Paired(
        criterion=criterion,
        arm=arm,
        other=other,
        wins=wins,
        ties=ties,
        losses=losses,
        win_rate=judged.win_rate,
        win_rate_low=judged.win_rate_low,
        win_rate_high=judged.win_rate_high,
        p=judged.p,
    )


def item_interval(scores_SP: np.ndarray) -> tuple[float, float]:
    """95 % interval over items alone: raters differ from item to item, so rows are no factor of their own.

    The mean over ratings is linear in each item's sum and count, so items enter by their influence on it: mean + (P /
    n) (sum_p - count_p mean).
    """
    sums_P, counts_P = np.nansum(scores_SP, axis=0), (~np.isnan(scores_SP)).sum(0)
    mean = sums_P.sum() / counts_P.sum()
    influence_P = mean + len(sums_P) / counts_P.sum() * (sums_P - counts_P * mean)
    interval = mean_interval(influence_P)
    return interval.low, interval.high

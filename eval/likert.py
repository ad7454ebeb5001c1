"""Likert ratings: the mean per arm and criterion with its interval and count. Reads a CSV.

Dimensions: S raters, P items.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from astro_cli.config.base import Config
from eval.annotations import AnnotationError, read_rows
from eval.stats import cluster_bootstrap

SCORE, CRITERION, ARM, ITEM = "score", "criterion", "arm", "item"


class Likert(Config):
    """Ratings of one arm under one criterion. `n`: ratings; `items`: the clusters of the interval."""

    arm: str
    criterion: str
    mean: float
    low: float
    high: float
    n: int
    items: int


def read(path: Path, scale: tuple[int, int]) -> list[Likert]:
    """Means of a CSV with the columns `criterion` and `score`, and if it likes `arm` and `item` (the video: ratings of one item are one cluster).

    Args:
        scale: lowest and highest score, e.g. (1, 4) in Reward Forcing (arXiv 2512.04678), Table 4.

    Raises:
        AnnotationError: no such column or file, or a score that is no whole number of the scale.

    **Deviations:** the paper prints means only. Intervals are ours: bootstrap over items, each rating an item of its own where no item is named.
    """
    groups: dict[tuple[str, str], dict[str, list[float]]] = {}
    for line, cells in read_rows(path, (CRITERION, SCORE)):
        score = _score(path, line, cells[SCORE], scale)
        items = groups.setdefault((cells.get(ARM, ""), cells[CRITERION]), {})
        items.setdefault(cells.get(ITEM) or f"line {line}", []).append(score)
    return [_summarise(arm, criterion, items) for (arm, criterion), items in groups.items()]


def _score(path: Path, line: int, text: str, scale: tuple[int, int]) -> int:
    if text.isdecimal() and scale[0] <= int(text) <= scale[1]:
        return int(text)
    raise AnnotationError(path, f"line {line}", f"{SCORE}: found {text!r}, allowed: whole numbers {scale[0]} to {scale[1]}", hint="see --scale")


def _summarise(arm: str, criterion: str, items: dict[str, list[float]]) -> Likert:
    """The mean is over ratings; the bootstrap draws items with all their ratings."""
    most = max(map(len, items.values()))
    scores_SP = np.array([[*found, *[math.nan] * (most - len(found))] for found in items.values()]).T
    means = item_interval(scores_SP)
    return Likert(arm=arm, criterion=criterion, mean=float(np.nanmean(scores_SP)), low=means[0], high=means[1], n=sum(map(len, items.values())),
                  items=len(items))  # fmt: skip


def item_interval(scores_SP: np.ndarray) -> tuple[float, float]:
    """95 % interval where items alone are drawn: raters differ from item to item, so rows are no factor of their own.

    The mean over ratings is linear in each item's sum and count, so items enter by their influence on it: mean + (P / n) (sum_p - count_p mean).
    """
    sums_P, counts_P = np.nansum(scores_SP, axis=0), (~np.isnan(scores_SP)).sum(0)
    mean = sums_P.sum() / counts_P.sum()
    influence_P = mean + len(sums_P) / counts_P.sum() * (sums_P - counts_P * mean)
    interval = cluster_bootstrap(influence_P)
    return interval.low, interval.high

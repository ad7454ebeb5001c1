"""How many seeds or prompts would settle a comparison, were its effect and spread what they are now.

Dimensions: S seeds, P prompts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from eval.records.stats import Spread, spread_of, student_quantile

MOST_SEEDS = 200  # more are no study
GROWTH = 1.25  # of the number of prompts, from one try to the next
MOST_PROMPTS = 100_000


class Needed(NamedTuple):
    """The smallest size that decides: so many seeds of so many prompts each."""

    seeds: int
    prompts: int


def needed(scores_SP: np.ndarray, distance: float) -> Needed | None:
    """The number of seeds, with the prompts there are, whose 95 % interval is shorter than `distance` on each side.

    Where no number of seeds does it, since prompts differ too much, prompts grow too. One seed says nothing about the
    spread of seeds: then prompts grow alone.

    Args:
        scores_SP: differences of pairs; NaN where the metric does not apply.
        distance: from their mean to where the verdict changes, > 0.

    Returns:
        None where MOST_SEEDS x MOST_PROMPTS would not do, or there is no spread to go by.

    Source: the variance of a mean of a two-way layout (see `stats.mean_interval`), with Satterthwaite's degrees of
    freedom from the expected mean squares.
    """
    spread = spread_of(scores_SP)
    if spread is None or distance <= 0:
        return None
    prompts = spread.prompts
    while prompts <= MOST_PROMPTS:
        sizes = (1,) if spread.seeds == 1 else range(2, MOST_SEEDS + 1)
        if _half_width(spread, sizes[-1], prompts) < distance:  # it falls with the number of seeds
            return Needed(next(n for n in sizes if _half_width(spread, n, prompts) < distance), prompts)
        if prompts == 1:  # once per run: there are no prompts to add
            return None
        prompts = math.ceil(prompts * GROWTH)
    return None


def _half_width(spread: Spread, seeds: int, prompts: int) -> float:
    """Half of the 95 % interval's length with so many seeds and prompts."""
    seed, prompt, rest = spread[:3]
    between_seeds, between_prompts = rest + prompts * seed, rest + seeds * prompt
    total = seed / seeds + prompt / prompts + rest / (seeds * prompts)
    terms = (
        (between_seeds, seeds - 1),
        (between_prompts, prompts - 1),
        (rest, (seeds - 1) * (prompts - 1)),
    )
    count = seeds * prompts
    below = sum((square / count) ** 2 / freedom for square, freedom in terms if freedom > 0)
    least = min(size - 1 for size in (seeds, prompts) if size > 1)
    freedom = max(total**2 / below, least) if below > 0 else least
    return student_quantile(freedom) * math.sqrt(total)

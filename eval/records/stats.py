"""Means, bootstrap intervals and verdicts over per-sample scores. Knows no records and no tables.

Dimensions: S seeds, P prompts (or samples in a fixed order), R resamples.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

CONFIDENCE_PERCENT = 95.0
RESAMPLES = 2000  # the ends of the interval then move by about 1 % of its width between random streams
BOOTSTRAP_SEED = 0  # one fixed stream: the same records always print the same table
FIXED_DRAWS_KEPT = 8  # shapes of (seeds, prompts) in one run; 4 MiB each at 256 prompts
MIN_UNITS = 2  # every resample of one prompt under one seed is the same: no width, and no interval
# Student's t at 97.5 % for 2 to 5 values (1 to 4 degrees of freedom): where a bootstrap has too little to draw from.
STUDENT_T = {2: 12.7062, 3: 4.3027, 4: 3.1824, 5: 2.7764}
Verdict = Literal["agrees", "disagrees", "undecided"]


class Interval(NamedTuple):
    """A mean with its 95 % percentile interval; `n` counts seeds."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def cluster_bootstrap(scores: np.ndarray, rng: np.random.Generator | None = None, resamples: int = RESAMPLES) -> Interval:
    """Mean and 95 % percentile interval of scores that share prompts across seeds.

    A resample draws prompts with replacement, the same draw for all seeds (a prompt is a cluster), and, where there is more than
    one seed, seeds with replacement. Efron & Tibshirani 1993, ch. 13 (percentile), crossed over the two factors.

    Args:
        scores: (S, P); NaN where the metric does not apply. A 1-d array is one seed.
        rng: stream of the draws; by default a fixed one.
        resamples: R.

    Raises:
        ValueError: no finite score, or an infinite one.

    **Deviations:** none. With two or three seeds a percentile interval is too narrow in the seed direction; `n` is shown for that.
    """
    scores_SP = _without_empty(np.atleast_2d(np.asarray(scores, dtype=float)))
    seeds, prompts = scores_SP.shape
    draws = _fixed_draws(seeds, prompts, resamples) if rng is None else _draws(rng, seeds, prompts, resamples)
    prompt_counts_RP, seed_counts_RS = draws
    present_SP = ~np.isnan(scores_SP)
    values_SP = np.where(present_SP, scores_SP, 0.0)
    sums_R = ((seed_counts_RS @ values_SP) * prompt_counts_RP).sum(1)
    counts_R = ((seed_counts_RS @ present_SP) * prompt_counts_RP).sum(1)
    means_R = sums_R[counts_R > 0] / counts_R[counts_R > 0]  # a draw of absent scores only has no mean
    tail = (100 - CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(means_R, [tail, 100 - tail])
    return Interval(float(scores_SP[present_SP].mean()), float(low), float(high), seeds)


def _draws(rng: np.random.Generator, seeds: int, prompts: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each prompt (R, P) and each seed (R, S) is drawn, as floats."""
    prompt_counts_RP = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    seed_counts_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # one seed: always counted once
    return prompt_counts_RP.astype(float), seed_counts_RS.astype(float)


@lru_cache(maxsize=FIXED_DRAWS_KEPT)
def _fixed_draws(seeds: int, prompts: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """The draws of the fixed stream: the same for all cells of one shape, so a page of tables draws them once."""
    return _draws(np.random.default_rng(BOOTSTRAP_SEED), seeds, prompts, resamples)


def paired_difference(a: np.ndarray, b: np.ndarray, rng: np.random.Generator | None = None, resamples: int = RESAMPLES) -> Interval:
    """Interval of mean(b - a) where `a` and `b` hold the same seeds and prompts in the same order; pairs are resampled together."""
    a_SP, b_SP = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a_SP.shape != b_SP.shape:
        raise ValueError(f"paired scores need one shape, found {a_SP.shape} and {b_SP.shape}")
    return cluster_bootstrap(b_SP - a_SP, rng, resamples)


def student_interval(scores: np.ndarray) -> Interval:
    """Mean and 95 % interval of 2 to 5 numbers, one per seed, taken as normal: mean +- t s / sqrt(n); s: sample standard deviation.

    Raises:
        ValueError: another count, or a number that is not finite.
    """
    values_S = np.asarray(scores, dtype=float)
    n = values_S.size
    if values_S.ndim != 1 or n not in STUDENT_T or not np.isfinite(values_S).all():
        raise ValueError(f"expected {min(STUDENT_T)} to {max(STUDENT_T)} finite numbers, found {values_S}")
    mean, half = float(values_S.mean()), STUDENT_T[n] * float(values_S.std(ddof=1)) / n**0.5
    return Interval(mean, mean - half, mean + half, n)


def independent_units(scores: np.ndarray) -> int:
    """How many prompts (or seeds, if those are more) carry a score: what the bootstrap has to draw from."""
    present_SP = ~np.isnan(np.atleast_2d(np.asarray(scores, dtype=float)))
    return int(max(present_SP.any(0).sum(), present_SP.any(1).sum()))


def has_interval(scores: np.ndarray) -> bool:
    """Whether there is more than one prompt or seed to draw from: else the ends of an interval are its mean."""
    return independent_units(scores) >= MIN_UNITS


def verdict(interval: Interval, published_delta: float, equal_within: float = 0.0) -> Verdict:
    """Whether a measured difference has the sign of the published one.

    `agrees` where the interval excludes 0 on the published side, `disagrees` where it excludes 0 on the other side. A published
    difference of 0 has no side: then `agrees` where the interval lies within +- `equal_within`, `disagrees` where it lies outside.
    """
    if published_delta == 0:
        if -equal_within <= interval.low and interval.high <= equal_within:
            return "agrees"
        return "disagrees" if interval.low > equal_within or interval.high < -equal_within else "undecided"
    if interval.low <= 0 <= interval.high:
        return "undecided"
    return "agrees" if (interval.low > 0) == (published_delta > 0) else "disagrees"


def _without_empty(scores_SP: np.ndarray) -> np.ndarray:
    """Drop seeds and prompts without any score: they are no part of the sample."""
    if scores_SP.ndim != 2 or np.isinf(scores_SP).any():
        raise ValueError("scores must be (seeds, prompts) of finite numbers or NaN")
    present_SP = ~np.isnan(scores_SP)
    if not present_SP.any():
        raise ValueError("no finite score")
    return scores_SP[present_SP.any(1)][:, present_SP.any(0)]

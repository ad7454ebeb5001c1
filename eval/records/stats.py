"""Means, 95 % intervals and verdicts over scores of prompts under seeds.

The interval is two-way: seeds and prompts are both random, and both are few or many. Its centre is the plain mean.

Dimensions: S seeds, P prompts (or samples in a fixed order).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

MIN_UNITS = 2  # one prompt under one seed has no spread, and so no interval
# Scores of single prompts: with fewer of them, all of one sign by chance is likelier than 5 % (5: 2 / 2^5 = 6 %), so no
# interval may decide.
MIN_PAIRS = 6
UPPER = 0.975  # where the upper end of a 95 % interval lies in a distribution
RANK_TOLERANCE = 1e-9  # of the singular values of a layout that confounds components, e.g. one seed
Verdict = Literal["agrees", "disagrees", "undecided"]


class Interval(NamedTuple):
    """A mean with its 95 % interval; `n` counts seeds."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(scores: np.ndarray) -> Interval:
    """Mean of scores that share prompts across seeds, with its 95 % interval.

    score_sp = mean + seed_s + prompt_p + rest_sp, three independent random terms. The variance of the mean is
    sum_s n_s^2 / N^2 var_seed + sum_p n_p^2 / N^2 var_prompt + var_rest / N over N scores, n_s of a seed and n_p of a
    prompt; the three variances come from the sums of squares between seeds, between prompts and in all (Henderson 1953,
    method I; of a full matrix that is the two-way analysis of variance). A negative one counts as 0. The half-width is
    Student's quantile times the root, with the degrees of freedom of Satterthwaite 1946. Of one seed, or one prompt, it
    is Student's interval of the single scores.

    Args:
        scores: (S, P); NaN where the metric does not apply. A 1-d array is one seed.

    Raises:
        ValueError: no finite score, or an infinite one.

    **Deviations:** none. One seed tells nothing about other seeds: its interval is over prompts alone, and `n` is shown
    for that.
    """
    scores_SP = _without_empty(np.atleast_2d(np.asarray(scores, dtype=float)))
    seeds, present_SP = scores_SP.shape[0], ~np.isnan(scores_SP)
    values = scores_SP[present_SP]
    if (values == values[0]).all():
        return Interval(float(values[0]), float(values[0]), float(values[0]), seeds)
    mean = float(values.mean())
    variance, freedom = _variance_of_mean(np.where(present_SP, scores_SP - mean, 0.0), present_SP)
    half = student_quantile(freedom) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, seeds)


class Spread(NamedTuple):
    """Variances of seeds, prompts and the rest, negative ones as 0, and how many seeds and prompts gave them."""

    seed: float
    prompt: float
    rest: float
    seeds: int
    prompts: int


def spread_of(scores: np.ndarray) -> Spread | None:
    """The three variances of `mean_interval`; None where a single score has none."""
    scores_SP = _without_empty(np.atleast_2d(np.asarray(scores, dtype=float)))
    present_SP = ~np.isnan(scores_SP)
    if present_SP.sum() < MIN_UNITS:
        return None
    centred_SP = np.where(present_SP, scores_SP - scores_SP[present_SP].mean(), 0.0)
    squares, inverse, _ = _components(centred_SP, present_SP)
    seed, prompt, rest = (float(value) for value in np.maximum(inverse @ squares, 0.0))
    return Spread(seed, prompt, rest, *present_SP.shape)


def _components(centred_SP: np.ndarray, present_SP: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of deviations from the mean, absent ones 0: the sums of squares between seeds, between prompts and in all; the
    matrix that takes them to the variances of seed, prompt and rest; what these count in the variance of the mean.
    """
    (S, P), N = present_SP.shape, int(present_SP.sum())
    count_S, count_P = present_SP.sum(1), present_SP.sum(0)
    squares = np.array(
        [(centred_SP.sum(1) ** 2 / count_S).sum(), (centred_SP.sum(0) ** 2 / count_P).sum(), (centred_SP**2).sum()]
    )
    per_seed, per_prompt = (count_S**2).sum() / N, (count_P**2).sum() / N
    expected = np.array(
        [
            [N - per_seed, S - per_prompt, S - 1],
            [P - per_seed, N - per_prompt, P - 1],
            [N - per_seed, N - per_prompt, N - 1],
        ]
    )
    inverse = np.linalg.pinv(expected, rcond=RANK_TOLERANCE)
    return squares, inverse, np.array([per_seed, per_prompt, 1.0]) / N


def _variance_of_mean(centred_SP: np.ndarray, present_SP: np.ndarray) -> tuple[float, float]:
    """Variance of the mean and its degrees of freedom, of deviations from it; absent ones are 0."""
    (S, P), N = present_SP.shape, int(present_SP.sum())
    squares, inverse, coefficients = _components(centred_SP, present_SP)
    variance = float(coefficients @ np.maximum(inverse @ squares, 0.0))
    share_seed, share_prompt, share_rest = (
        coefficients @ inverse
    )  # of the sums of squares in the variance before negative parts count as 0
    rest = squares[2] - squares[0] - squares[1]
    terms = (
        ((share_seed + share_rest) * squares[0], S - 1),
        ((share_prompt + share_rest) * squares[1], P - 1),
        (share_rest * rest, N - S - P + 1),
    )
    spread = sum(float(term) ** 2 / freedom for term, freedom in terms if freedom > 0)
    least = min(count - 1 for count in (S, P) if count > 1)
    return variance, max(variance**2 / spread, least) if spread > 0 else least


def student_quantile(freedom: float) -> float:
    """Student's t at 97.5 % for `freedom` >= 1 degrees of freedom, whole or not.

    Raises:
        ValueError: under one degree of freedom.
    """
    from scipy.special import stdtrit  # slow to import; scipy.stats, several times slower, takes it from here too

    if freedom < 1:
        raise ValueError(f"expected at least 1 degree of freedom, found {freedom}")
    return float(stdtrit(freedom, UPPER))


def paired_difference(a: np.ndarray, b: np.ndarray) -> Interval:
    """Interval of mean(b - a) where `a` and `b` hold the same seeds and prompts in the same order."""
    a_SP, b_SP = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a_SP.shape != b_SP.shape:
        raise ValueError(f"paired scores need one shape, found {a_SP.shape} and {b_SP.shape}")
    return mean_interval(b_SP - a_SP)


def independent_units(scores: np.ndarray) -> int:
    """How many prompts (or seeds, if those are more) carry a score."""
    present_SP = ~np.isnan(np.atleast_2d(np.asarray(scores, dtype=float)))
    return int(max(present_SP.any(0).sum(), present_SP.any(1).sum()))


def has_interval(scores: np.ndarray) -> bool:
    """Whether there is more than one prompt or seed: else the ends of an interval are its mean."""
    return independent_units(scores) >= MIN_UNITS


def may_decide(scores: np.ndarray) -> bool:
    """Whether there are enough scores for an interval to settle anything: 2 runs of a value that each yields once, else
    6 prompts.
    """
    is_once_per_run = np.atleast_2d(np.asarray(scores, dtype=float)).shape[1] == 1
    return independent_units(scores) >= (MIN_UNITS if is_once_per_run else MIN_PAIRS)


def verdict(interval: Interval, published_delta: float, equal_within: float = 0.0) -> Verdict:
    """Whether a measured difference has the sign of the published one.

    `agrees` where the interval excludes 0 on the published side, `disagrees` where it excludes 0 on the other side. A
    published difference of 0 has no side: then `agrees` where the interval lies within +- `equal_within`, `disagrees`
    where it lies outside.
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

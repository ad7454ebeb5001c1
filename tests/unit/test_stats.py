"""Intervals and verdicts, on arrays small enough to work by hand; how often the interval covers the truth, on arrays
like the records'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from eval.records.stats import (
    Interval,
    has_interval,
    independent_units,
    may_decide,
    mean_interval,
    paired_difference,
    student_quantile,
    verdict,
)

NAN = np.nan
# Student's t at 97.5 %, as printed in tables.
PRINTED_T = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 30: 2.0423, 100: 1.9840, 1000: 1.9623}
# Prompts, and variances of seed and prompt as fractions of the rest's, in paired differences that three seeds of the
# embedded study decide.
RECORDED = {
    "Table 4c, TA only, MQ": (256, 0.037, 0.053),
    "Table 4c, VQ only, MQ": (256, 0.024, 0.0),
    "Figure 8b, without, VQ": (256, 0.060, 0.225),
}
DRAWS = 300  # the standard error of a coverage of .94 is then .014
LOWEST = 0.905  # the two-way interval covers .93 to .95 of many draws here, the bootstrap .82 to .87: see docs/log.md


def half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def drawn(
    rng: np.random.Generator, seeds: int, prompts: int, seed_variance: float, prompt_variance: float
) -> np.ndarray:
    """(S, P) differences of mean 0 with these variances of seed and prompt beside one of 1 for the rest."""
    seed_S1 = math.sqrt(seed_variance) * rng.standard_normal((seeds, 1))
    return seed_S1 + math.sqrt(prompt_variance) * rng.standard_normal(prompts) + rng.standard_normal((seeds, prompts))


def test_constant_scores_have_a_zero_width_interval() -> None:
    assert mean_interval(np.full((3, 5), 0.1)) == Interval(0.1, 0.1, 0.1, 3)  # .1 is not exact in binary
    assert mean_interval(np.array([[0.1, NAN], [0.1, 0.1]])) == Interval(0.1, 0.1, 0.1, 2)
    assert mean_interval(np.array([0.1])) == Interval(0.1, 0.1, 0.1, 1)


def test_constant_differences_have_a_zero_width_interval() -> None:
    a = np.arange(12.0).reshape(3, 4)
    assert paired_difference(a, a + 0.25) == Interval(0.25, 0.25, 0.25, 3)


def test_difference_is_second_minus_first() -> None:
    assert paired_difference(np.zeros((2, 6)), np.ones((2, 6))).mean == 1.0


def test_pairing_removes_what_prompts_share() -> None:
    prompts_P = np.linspace(0, 100, 20)  # spread 100, gain 1 or 3: unpaired intervals would overlap widely
    gain_P = np.where(np.arange(20) % 2, 1.0, 3.0)
    interval = paired_difference(prompts_P[None], (prompts_P + gain_P)[None])
    assert interval.mean == pytest.approx(2.0)
    assert 1.0 < interval.low < 2.0 < interval.high < 3.0


def test_one_seed_and_one_prompt_are_students_interval_by_hand() -> None:
    # mean 2, s = 1: 4.3027 / sqrt 3 = 2.4842, over three prompts as over three seeds
    for scores in ([[1.0, 2.0, 3.0]], [[1.0], [2.0], [3.0]]):
        interval = mean_interval(np.array(scores))
        assert interval == pytest.approx((2.0, -0.4842, 4.4842, len(scores)), abs=1e-4)


def test_a_full_matrix_by_hand() -> None:
    # Mean 4. Seed means 2 and 6: mean square 3 x (4 + 4) / 1 = 24. Prompt means 3, 2.5 and 6.5: 2 x (1 + 2.25 + 6.25) /
    # 2 = 9.5.
    # Residuals -1, .5, .5 and 1, -.5, -.5: 3 / 2 = 1.5. Variance of the mean (24 + 9.5 - 1.5) / 6 = 16/3.
    # Degrees of freedom 32^2 / (24^2 / 1 + 9.5^2 / 2 + 1.5^2 / 2) = 1024 / 622.25.
    interval = mean_interval(np.array([[0.0, 1.0, 5.0], [6.0, 4.0, 8.0]]))
    assert (interval.mean, interval.n) == (4.0, 2)
    assert half_width(interval) == pytest.approx(student_quantile(1024 / 622.25) * math.sqrt(16 / 3))


def test_seeds_that_agree_add_nothing_but_prompts_still_count() -> None:
    # Rows are equal, so seeds and rest have no variance: the standard error is that of one seed over its prompts.
    row_P = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    one, eight = mean_interval(row_P), mean_interval(np.tile(row_P, (8, 1)))
    assert (one.n, eight.n) == (1, 8)
    assert half_width(eight) == pytest.approx(half_width(one))


def test_three_seeds_are_as_uncertain_as_three_numbers() -> None:
    # All prompts equal within a seed: as if each seed had one score. s = 1: 4.3027 / sqrt 3
    assert half_width(mean_interval(np.repeat([[1.0], [2.0], [3.0]], 50, axis=1))) == pytest.approx(2.4842, abs=1e-4)


def test_a_negative_variance_counts_as_none() -> None:
    # Seed means are equal and cells are not: the variance of seeds comes out below 0. What is left is prompts (means 1,
    # 1: none) and rest,
    # whose mean square is 4 x 1 / (1 x 1) = 4: sqrt(4 / 4) = 1, with one degree of freedom.
    assert half_width(mean_interval(np.array([[0.0, 2.0], [2.0, 0.0]]))) == pytest.approx(12.7062, abs=1e-3)


def test_width_is_that_of_the_standard_error() -> None:
    scores_P = np.random.default_rng(1).standard_normal(400)
    assert half_width(mean_interval(scores_P)) == pytest.approx(1.966 * scores_P.std(ddof=1) / 20, rel=1e-3)


def test_absent_scores_are_left_out() -> None:
    # (1 + 3 + 5) / 3 = 3; a prompt and a seed without any score do not count
    scores_SP = np.array([[1.0, NAN, 3.0], [NAN, NAN, 5.0], [NAN, NAN, NAN]])
    interval = mean_interval(scores_SP)
    assert (interval.mean, interval.n) == (3.0, 2)
    assert np.isfinite([interval.low, interval.high]).all()
    assert independent_units(scores_SP) == 2


def test_a_few_absent_scores_change_the_interval_little() -> None:
    scores_SP = drawn(np.random.default_rng(5), 3, 64, 0.05, 0.3)
    holed_SP = scores_SP.copy()
    holed_SP[[0, 1, 2], [3, 17, 40]] = NAN
    assert half_width(mean_interval(holed_SP)) == pytest.approx(half_width(mean_interval(scores_SP)), rel=0.1)


def test_variances_of_an_unbalanced_layout_are_unbiased() -> None:
    """The mean square of the mean's error is the mean variance that the interval is made of."""
    rng, errors, widths = np.random.default_rng(6), [], []
    absent_SP = rng.random((5, 40)) < 0.3
    for _ in range(DRAWS):
        interval = mean_interval(np.where(absent_SP, NAN, drawn(rng, 5, 40, 0.2, 0.5)))
        errors.append(interval.mean**2)
        widths.append(interval.low < 0 < interval.high)
    # 0.2 / 5 + 0.5 / 40 + 1 / 140, a little more for unequal counts
    assert np.mean(errors) == pytest.approx(0.2 / 5 + 0.5 / 40 + 1 / 140, rel=0.2)
    assert np.mean(widths) > 0.92


@cache
def shares_drawn(count: int) -> np.ndarray:
    """(400, count): how often each of `count` is among as many that are drawn with replacement, over their number."""
    return np.random.default_rng(count).multinomial(count, np.full(count, 1 / count), size=400) / count


def bootstrap_interval(scores_SP: np.ndarray) -> Interval:
    """The percentile interval of the crossed bootstrap."""
    seeds, prompts = scores_SP.shape
    seed_RS, prompt_RP = shares_drawn(seeds), shares_drawn(prompts)
    low, high = np.percentile(((seed_RS @ scores_SP) * prompt_RP).sum(1), [2.5, 97.5])
    return Interval(float(scores_SP.mean()), float(low), float(high), seeds)


def coverage(
    interval_of: Callable[[np.ndarray], Interval], prompts: int, seed_variance: float, prompt_variance: float
) -> float:
    """Share of draws of three seeds whose interval holds the true mean, 0."""
    rng = np.random.default_rng(7)
    found = [interval_of(drawn(rng, 3, prompts, seed_variance, prompt_variance)) for _ in range(DRAWS)]
    return float(np.mean([each.low <= 0 <= each.high for each in found]))


@pytest.mark.parametrize("name", RECORDED)
def test_of_three_seeds_the_interval_holds_the_truth_as_often_as_it_says(name: str) -> None:
    assert coverage(mean_interval, *RECORDED[name]) >= LOWEST


def test_a_bootstrap_of_three_seeds_does_not() -> None:
    """Why it is not the interval: it draws three seeds from three, which is too few to see how far a fourth would
    lie.
    """
    assert coverage(bootstrap_interval, *RECORDED["Figure 8b, without, VQ"]) < LOWEST


@pytest.mark.parametrize(("freedom", "printed"), PRINTED_T.items())
def test_students_quantiles_are_the_printed_ones(freedom: int, printed: float) -> None:
    assert student_quantile(freedom) == pytest.approx(printed, abs=6e-5)


def test_students_quantiles_between_whole_numbers() -> None:
    # One degree of freedom: tan(.475 pi). Two: t / sqrt(2 + t^2) = .95. The quantile falls from one to the other.
    assert student_quantile(1) == pytest.approx(math.tan(0.475 * math.pi))
    assert student_quantile(2) == pytest.approx(math.sqrt(2 * 0.95**2 / (1 - 0.95**2)))
    assert (
        student_quantile(1)
        > student_quantile(1.01)
        > student_quantile(1.5)
        > student_quantile(1.99)
        > student_quantile(2)
    )
    assert student_quantile(1e6) == pytest.approx(1.959966, abs=1e-6)
    with pytest.raises(ValueError, match="at least 1"):
        student_quantile(0.5)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[1.0]], False),
        ([[1.0, NAN]], False),
        ([[NAN, NAN]], False),
        ([[1.0, 2.0]], True),
        ([[1.0], [2.0]], True),
        ([1.0, 1.0], True),
    ],
)
def test_an_interval_needs_two_prompts_or_seeds(scores: list, expected: bool) -> None:
    assert has_interval(np.array(scores)) == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 5), False), ((1, 6), True), ((3, 5), False), ((3, 6), True), ((1, 1), False), ((2, 1), True), ((6, 2), True)],
)
def test_six_prompts_may_decide_or_two_runs_of_what_a_run_yields_once(shape: tuple[int, int], expected: bool) -> None:
    assert may_decide(np.zeros(shape)) == expected


def test_pair_with_one_absent_half_is_left_out() -> None:
    assert paired_difference(np.array([[0.0, NAN, 0.0]]), np.array([[2.0, 9.0, NAN]])) == Interval(2.0, 2.0, 2.0, 1)


@pytest.mark.parametrize(
    "scores", [np.array([[NAN]]), np.zeros((0, 0)), np.array([[np.inf, 1.0]]), np.zeros((2, 2, 2))]
)
def test_scores_without_a_mean_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(scores)


def test_pairs_need_one_shape() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(np.zeros((1, 3)), np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("low", "high", "published", "expected"),
    [
        (0.1, 0.3, 1.36, "agrees"),
        (-0.3, -0.1, 1.36, "disagrees"),
        (-0.1, 0.3, 1.36, "undecided"),
        (-0.3, -0.1, -0.12, "agrees"),
        (0.1, 0.3, -0.12, "disagrees"),
        (0.0, 0.3, 1.0, "undecided"),  # an end on 0 does not exclude 0
        (0.0, 0.0, 1.0, "undecided"),
        (-0.1, 0.1, 0.0, "agrees"),  # published 0, allowed +- 0.2: inside
        (0.3, 0.4, 0.0, "disagrees"),  # outside
        (-0.1, 0.4, 0.0, "undecided"),  # across
    ],
)
def test_verdicts(low: float, high: float, published: float, expected: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high, 3), published, equal_within=0.2) == expected

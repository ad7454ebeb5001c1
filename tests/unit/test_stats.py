"""Intervals and verdicts, on arrays small enough to work by hand."""

from __future__ import annotations

import numpy as np
import pytest

from eval.records.stats import STUDENT_T, Interval, cluster_bootstrap, has_interval, independent_units, paired_difference, student_interval, verdict

NAN = np.nan


def test_constant_scores_have_a_zero_width_interval() -> None:
    assert cluster_bootstrap(np.full((3, 5), 0.5)) == Interval(0.5, 0.5, 0.5, 3)


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


def test_interval_of_two_prompts_by_hand() -> None:
    # one seed, prompts 0 and 1: a resample's mean is 0 (1/4), 1/2 (1/2) or 1 (1/4); both tails exceed 2.5 %, so the ends are 0 and 1
    assert cluster_bootstrap(np.array([[0.0, 1.0]])) == Interval(0.5, 0.0, 1.0, 1)


def test_prompts_are_drawn_together_for_all_seeds() -> None:
    # rows are equal, so drawing seeds changes nothing and the interval must be the one of a single seed; drawing every cell
    # by itself would shrink it by sqrt(8)
    row_P = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    one, eight = cluster_bootstrap(row_P[None]), cluster_bootstrap(np.tile(row_P, (8, 1)))
    assert eight.n == 8
    assert eight.high - eight.low == pytest.approx(one.high - one.low, rel=0.1)


def test_seeds_are_drawn_too() -> None:
    # all prompts equal within a seed: all spread comes from the seeds 0 and 1, as in the two-prompt case above
    assert cluster_bootstrap(np.array([[0.0] * 50, [1.0] * 50])) == Interval(0.5, 0.0, 1.0, 2)


def test_width_is_that_of_the_standard_error() -> None:
    scores_P = np.random.default_rng(1).standard_normal(400)
    interval = cluster_bootstrap(scores_P[None])
    assert interval.half_width == pytest.approx(1.96 * scores_P.std() / np.sqrt(400), rel=0.1)


def test_absent_scores_are_left_out() -> None:
    # (1 + 3 + 5) / 3 = 3; a prompt and a seed without any score do not count
    scores_SP = np.array([[1.0, NAN, 3.0], [NAN, NAN, 5.0], [NAN, NAN, NAN]])
    interval = cluster_bootstrap(scores_SP)
    assert (interval.mean, interval.n) == (3.0, 2)
    assert np.isfinite([interval.low, interval.high]).all()
    assert independent_units(scores_SP) == 2


def test_students_interval_by_hand() -> None:
    # mean 2, s = 1: 4.3027 / sqrt 3 = 2.4842
    interval = student_interval(np.array([1.0, 2.0, 3.0]))
    assert interval == pytest.approx((2.0, -0.4842, 4.4842, 3), abs=1e-4)
    with pytest.raises(ValueError, match="2 to 5"):
        student_interval(np.array([1.0]))


def test_students_quantiles_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert [float(stats.t.ppf(0.975, n - 1)) for n in STUDENT_T] == pytest.approx(list(STUDENT_T.values()), abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([[1.0]], False), ([[1.0, NAN]], False), ([[NAN, NAN]], False), ([[1.0, 2.0]], True), ([[1.0], [2.0]], True), ([1.0, 1.0], True)],
)
def test_an_interval_needs_two_prompts_or_seeds(scores: list, expected: bool) -> None:
    assert has_interval(np.array(scores)) == expected


def test_pair_with_one_absent_half_is_left_out() -> None:
    assert paired_difference(np.array([[0.0, NAN, 0.0]]), np.array([[2.0, 9.0, NAN]])) == Interval(2.0, 2.0, 2.0, 1)


def test_same_scores_same_interval() -> None:
    scores_SP = np.random.default_rng(2).random((3, 10))
    assert cluster_bootstrap(scores_SP) == cluster_bootstrap(scores_SP)
    assert cluster_bootstrap(scores_SP, np.random.default_rng(7)) != cluster_bootstrap(scores_SP)


@pytest.mark.parametrize("scores", [np.array([[NAN]]), np.zeros((0, 0)), np.array([[np.inf, 1.0]]), np.zeros((2, 2, 2))])
def test_scores_without_a_mean_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        cluster_bootstrap(scores)


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

"""How many seeds would decide: values worked by hand, a simulation that has them, and what a claim prints."""

import math

import numpy as np
import pytest

from eval.papers.verdicts import distance_to_verdict
from eval.records.power import Needed, needed
from eval.records.stats import mean_interval, spread_of, student_quantile


def test_variances_of_a_layout_worked_by_hand():
    # seeds differ by +-1 and nothing else varies: mean squares 2 P / 1 = 8 between seeds, 0 elsewhere
    spread = spread_of(np.array([[1.0] * 4, [-1.0] * 4]))
    assert spread is not None
    assert spread[:3] == pytest.approx((2.0, 0.0, 0.0))
    assert spread[3:] == (2, 4)
    assert spread_of(np.array([[1.0]])) is None


def test_runs_of_one_value_need_students_number():
    # one value a run, deviation 1: t(S - 1) / sqrt(S) < 1 from S = 7 on (2.447 / 2.646), not at 6 (2.571 / 2.449)
    scores = np.array([[-1.0], [0.0], [1.0]])
    assert student_quantile(6) / math.sqrt(7) < 1 < student_quantile(5) / math.sqrt(6)
    assert needed(scores, 1.0) == Needed(7, 1)
    assert needed(scores, 0.01) is None


def test_where_prompts_alone_differ_prompts_are_added():
    scores = np.tile(np.linspace(-1, 1, 10), (3, 1))  # the same in every seed
    found = needed(scores, 0.1)
    assert found is not None
    assert found.seeds == 2
    deviation = np.linspace(-1, 1, 10).std(ddof=1)
    wanted = next(p for p in range(2, 1000) if student_quantile(p - 1) * deviation / math.sqrt(p) < 0.1)
    assert wanted <= found.prompts <= 1.3 * wanted


def test_one_seed_says_nothing_of_seeds():
    found = needed(np.random.default_rng(0).normal(size=(1, 20)), 0.2)
    assert found is not None
    assert found.seeds == 1
    assert found.prompts > 20


def test_nothing_to_go_by():
    assert needed(np.array([[1.0, 2.0], [3.0, 4.0]]), 0.0) is None
    assert needed(np.array([[1.0]]), 1.0) is None


def test_the_number_found_decides_in_a_simulation():
    rng = np.random.default_rng(1)

    def draw(seeds, prompts):
        return 0.1 + rng.normal(size=(seeds, 1)) * 0.1 + rng.normal(size=(seeds, prompts)) * 0.2

    sizes = [needed(draw(3, 40), 0.1) for _ in range(200)]
    typical = int(np.median([size.seeds for size in sizes if size is not None]))
    half = np.mean([(i := mean_interval(draw(typical, 40))).high - i.mean for _ in range(200)])
    assert 0.06 < half < 0.13  # the half-width that was asked for is .1


@pytest.mark.parametrize(
    ("mean", "relation", "margin", "distance"),
    [
        (0.3, ">", 0.1, 0.2),
        (-0.3, ">", 0.1, 0.4),
        (0.3, ">=", 0.1, 0.4),
        (0.3, "<", 0.1, 0.4),
        (-0.3, "<", 0.1, 0.2),
        (0.3, "<=", 0.1, 0.2),
        (0.03, "=", 0.1, 0.07),
        (-0.3, "=", 0.1, 0.2),
    ],
)
def test_distance_is_to_where_the_verdict_changes(mean, relation, margin, distance):
    assert distance_to_verdict(mean, relation, margin) == pytest.approx(distance)

"""Totals of a suite: the formula's value, an interval that is its own, and none before all metrics are there."""

from __future__ import annotations

import numpy as np
import pytest

from eval.contract import MetricInfo
from eval.records.stats import mean_interval
from eval.scoring.outcomes import Outcome
from eval.scoring.totals import totals
from eval.vbench import totals as vbench_totals

PROMPTS = 120


def outcome(key: str, scores: list[float | None] | None, found: int = 1) -> Outcome:
    present = [score for score in scores or () if score is not None]
    return Outcome(
        key,
        MetricInfo(key, "up", "0..1", ""),
        found,
        1,
        scores,
        float(np.mean(present)) if present else None,
        scale=100.0,
    )


@pytest.fixture
def quality() -> list[Outcome]:
    """The seven quality dimensions in percent, each on prompts of its own that overlap with others'."""
    rng, made = np.random.default_rng(0), []
    for place, name in enumerate(vbench_totals.QUALITY_DIMENSIONS):
        scores = (100 * rng.uniform(0.7, 0.95, PROMPTS)).tolist()
        made.append(outcome(name, [score if (prompt + place) % 3 else None for prompt, score in enumerate(scores)]))
    return made


def test_the_total_is_the_formula_of_the_means(quality):
    (found,) = totals({"quality": "quality"}, quality)
    means = {part.key: part.mean / 100 for part in quality}
    assert found.mean == pytest.approx(100 * vbench_totals.quality(means))
    assert found.coverage == "7/7"


def test_published_totals_come_out():
    # Reward Forcing, Table 6, Self Forcing: subject 94.47 ... any constants do; one prompt each, so the mean is the
    # value
    values = dict.fromkeys(vbench_totals.DIMENSIONS, 0.5)
    found = {
        each.key: each.mean
        for each in totals({"total": "total", "q": "quality", "s": "semantic"}, [outcome(k, [50.0]) for k in values])
    }
    assert found["total"] == pytest.approx(100 * vbench_totals.total(values))
    assert found["total"] == pytest.approx((4 * found["q"] + found["s"]) / 5)


def test_its_interval_is_its_own(quality):
    """Prompts drawn again, every dimension averaged anew and the formula applied: the spread is what the linearised
    scores give.
    """
    (found,) = totals({"quality": "quality"}, quality)
    interval = mean_interval(np.array(found.scores, dtype=float))
    values_DP = np.array([part.scores for part in quality], dtype=float) / 100
    rng, direct = np.random.default_rng(1), []
    for _ in range(2000):
        drawn = np.nanmean(values_DP[:, rng.integers(0, PROMPTS, PROMPTS)], axis=1)
        direct.append(100 * vbench_totals.quality(dict(zip(vbench_totals.QUALITY_DIMENSIONS, drawn, strict=True))))
    low, high = np.percentile(direct, [2.5, 97.5])
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.12)
    assert interval.low == pytest.approx(low, abs=0.12 * (high - low))


def test_no_total_before_all_are_complete(quality):
    missing = [*quality[:-1], outcome(quality[-1].key, None, found=0)]
    (found,) = totals({"quality": "quality"}, missing)
    assert (found.scores, found.mean, found.coverage, found.parts) == (None, None, "6/7", "metrics")
    (absent,) = totals({"total": "total"}, quality)
    assert absent.coverage == "7/16"
    assert not absent.complete


def test_i2v_totals_by_hand():
    # camera motion alone at 1, weight .1 of 2.1; subject and background at their lowest: 0
    low = {"i2v_subject": 0.1462, "i2v_background": 0.2615, "camera_motion": 1.0}
    names = {"i2v": "i2v", "quality": "i2v_quality", "total": "i2v_total"}
    own = [outcome(name, [100 * value]) for name, value in low.items()]
    found = {each.key: each for each in totals(names, own)}
    assert found["i2v"].mean == pytest.approx(100 * 0.1 / 2.1)
    assert found["total"].mean is None
    assert found["total"].coverage == "3/9"
    # six quality dimensions at their highest: 1; the total is the mean of both parts
    high = {name: 0.9975 if name == "motion_smoothness" else 1.0 for name in vbench_totals.LONG_DIMENSIONS}
    found = {
        each.key: each for each in totals(names, own + [outcome(name, [100 * value]) for name, value in high.items()])
    }
    assert found["quality"].mean == pytest.approx(100.0)
    assert found["total"].mean == pytest.approx(50 * (0.1 / 2.1 + 1))

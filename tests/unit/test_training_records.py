"""Measures of a run from its metrics, by hand."""

from eval.training_records import measures


def row(norm: float, reward: float, saved: float, **more: float) -> dict[str, float]:
    return {"student/x0_norm": norm, "reward/total": reward, "memory/saved_bytes": saved, **more}


def test_measures_by_hand():
    # ends of two epochs: norm (3 + 5) / 2 over (1 + 3) / 2 = 2; reward 1 - 2 = -1; the peak is the largest
    rows = [row(1, 2, 7), row(3, 2, 9), row(3, 1, 8), row(5, 1, 7)]
    assert measures(rows) == {"peak_memory": 9, "x0_norm_growth": 2.0, "reward_change": -1.0}
    assert measures(rows[:1]) == {"peak_memory": 7, "x0_norm_growth": 1.0, "reward_change": 0.0}


def test_on_cuda_the_allocators_peak_counts():
    assert measures([row(1, 1, 5, **{"memory/peak_bytes": 11.0})])["peak_memory"] == 11.0

"""Simulated raters: how often they agree, what they give, and the tables that show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.papers.published import load_table
from eval.papers.table import build
from eval.records import store
from eval.studies import raters
from eval.studies.raters import agreement, judgements, opinions, rate, temperature
from tests import claim_records

PROMPTS = 30


def scores() -> np.ndarray:
    """Three arms, the later the better."""
    return np.random.default_rng(0).normal(size=(3, PROMPTS)) * 0.1 + np.array([[0.2], [0.5], [0.8]])


def test_two_raters_agree_in_three_of_four():
    assert agreement(scores(), 1e-9) == pytest.approx(1.0)
    assert agreement(scores(), 1e9) == pytest.approx(0.5)
    assert agreement(scores(), temperature(scores())) == pytest.approx(0.75)
    # one pair a difference of tau apart: p = .731, p^2 + (1 - p)^2 = .607
    assert agreement(np.array([[1.0], [0.0]]), 1.0) == pytest.approx(0.6068, abs=1e-4)


def test_ranks_and_ratings():
    opinion = np.array([[3.0, 0.0], [2.0, 1.0]])
    assert judgements("rank", opinion).tolist() == [[1.0, 2.0], [2.0, 1.0]]
    assert judgements("likert", np.arange(8.0).reshape(2, 4)).tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]
    given = opinions(scores(), 60, 0)
    assert given.shape == (3, 60)
    assert (given == opinions(scores(), 60, 0)).all()
    assert (judgements("rank", given).sum(0) == 6).all()


@pytest.mark.parametrize(
    ("paper", "table"), [("delta-forcing", "delta-forcing-3"), ("reward-forcing", "reward-forcing-4")]
)
def test_a_papers_raters_fill_its_table(paper: str, table: str, tmp_path: Path):
    study = raters.RATER_STUDIES[paper]
    assert rate(paper, tmp_path) == 0
    metrics = {metric for names in study.criteria.values() for metric in names}
    for place, arm in enumerate(study.arms):
        for metric in metrics:
            values = [float(value) for value in scores()[place]]
            store.append(
                store.record_path(tmp_path, study.source),
                claim_records.record(arm, metric, values, 0, benchmark=study.source, protocol={"prompts": PROMPTS}),
            )
    assert rate(paper, tmp_path) == 1
    path = store.record_path(tmp_path, study.benchmark)
    written = path.read_text()
    records = store.load_results(tmp_path)
    rows = build(load_table(table), records).rows
    shown = {row.label: row.measured for row in rows if any(value is not None for value in row.measured.values())}
    assert len(shown) == len(study.arms)
    for criterion in study.criteria:
        means = [next(r.mean for r in records if (r.arm, r.metric) == (arm, criterion)) for arm in study.arms]
        best = min(means) if study.kind == "rank" else max(means)
        assert means[-1] == best
    assert rate(paper, tmp_path) == 1
    assert path.read_text() == written  # the same again adds nothing

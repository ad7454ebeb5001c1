"""Selective KL (Astrolabe section 3.4, Alg. 1 lines 9-17, 29, 34-37): direction, threshold, risk ratio and resets by
hand.
"""

import pytest
import torch

from astro_cli.core.disagreement import BUFFER, RiskRatio, rank_disagreement, ranks, threshold
from astro_cli.core.reset import ResetRule


def test_ranks_by_hand():
    # lowest score has rank 0; the two 3.0 share ranks 1 and 2
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 9.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_positive_means_over_scored_by_the_primary():
    # the primary ranks sample 3 on top (3), both others at the bottom (0): Delta = 3 - 0; sample 0 the other way round:
    # 0 - 3
    primary = torch.tensor([0.1, 0.2, 0.3, 0.4])
    aux = torch.tensor([9.0, 3.0, 2.0, 1.0])
    delta = rank_disagreement(torch.stack([primary, aux, aux * 5]))
    assert delta.tolist() == [-3.0, -1.0, 1.0, 3.0]


def test_disagreement_is_with_the_mean_of_the_others():
    # ranks: primary (0, 1, 2), first (2, 1, 0), second (0, 2, 1); means of the others (1, 1.5, .5): Delta (-1, -.5,
    # 1.5)
    scores = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    assert rank_disagreement(scores).tolist() == [-1.0, -0.5, 1.5]
    assert rank_disagreement(scores[:1].expand(3, -1)).tolist() == [
        0.0,
        0.0,
        0.0,
    ]  # rewards that agree put nothing at risk


def test_threshold_is_a_percentile_of_what_is_not_negative():
    # {0, 1, 2, 3, 4} of Delta; ratio .25: the 75th percentile is 3, only 4 is above
    delta = torch.tensor([-6.0, -4.0, 0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert threshold(delta, 0.25) == 3.0
    assert (delta > threshold(delta, 0.25)).tolist() == [False] * 6 + [True]
    # ratio .1: between 3 and 4, 3 + .6
    assert threshold(delta, 0.1) == pytest.approx(3.6)


def test_risk_ratio_by_hand():
    risk = RiskRatio()
    means = [2.0, 3.0, 2.5, 1.0]  # of the positive disagreements
    # first: buffer empty, .1; 3 > max(2): .11; 2.5 between: .11; 1 < min(2, 3, 2.5): .099
    for mean, expected in zip(means, (0.1, 0.11, 0.11, 0.099), strict=True):
        assert risk.update(torch.tensor([-mean, mean], dtype=torch.float64)) == pytest.approx(expected)
    assert risk.buffer == means


def test_risk_ratio_stays_in_its_range_and_forgets():
    risk = RiskRatio()
    for step in range(30):
        risk.update(torch.tensor([float(step)]))
    assert risk.ratio == 0.2
    assert risk.buffer == [float(step) for step in range(10, 30)]
    assert len(risk.buffer) == BUFFER
    for step in range(60):
        risk.update(torch.tensor([1.0 / (step + 2)]))
    assert risk.ratio == 0.02


def test_risk_ratio_comes_back_from_a_checkpoint():
    risk, again = RiskRatio(), RiskRatio()
    for mean in (1 / 3, 2 / 7, 0.9):
        risk.update(torch.tensor([mean], dtype=torch.float64))
    again.load(risk.state())
    assert again == risk


def test_reference_resets_by_hand():
    rule = ResetRule(0.5, 3)
    # .5 is not above tau; .6 is (epoch 1); then nothing until more than 3 epochs have passed: epoch 5
    kl = [0.5, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert [rule.due(epoch, value) for epoch, value in enumerate(kl)] == [False, True, False, False, False, True, False]
    assert rule.threshold == 0.5


def test_released_reference_moves_its_threshold():
    rule = ResetRule(0.15, 15, released=True)
    # 16 > 15 epochs without a reset: .15 - .01
    assert [rule.due(epoch, 0.0) for epoch in (15, 16)] == [False, True]
    assert rule.threshold == pytest.approx(0.14)
    # 2 < 5 epochs later: min(.14 + .01, .05), as released
    assert rule.due(18, 0.2)
    assert rule.threshold == 0.05

"""Which two of a group make a pair, by rewards and by a simulated rater."""

from __future__ import annotations

import torch

from astro_cli.core.preference import best_and_worst, rated_pair
from astro_cli.shapes.rater import ASPECTS, OverallScore, aspects
from tests.rendered import clip


def test_best_and_worst_by_hand():
    chosen, rejected = best_and_worst(torch.tensor([[0.2, 0.9, 0.1], [0.5, 0.5, 0.5]]))
    assert chosen.tolist() == [1, 0]
    assert rejected.tolist() == [2, 2]  # equal scores: still two clips


def test_hard_negatives_are_alike_in_the_overlap():
    total = torch.tensor([[1.0, 0.9, 0.0, 0.3]])
    meaning = torch.tensor([[0.8, 0.5, 0.1, 0.75]])
    # 1.0 against 0.0 differs most, but by .7 in meaning; 1.0 and .3 differ by .05 there
    assert [side.item() for side in best_and_worst(total, meaning, 0.1)] == [0, 3]
    # no two as alike as .01: the two most alike
    assert [side.item() for side in best_and_worst(total, meaning, 0.01)] == [0, 3]
    assert [side.item() for side in best_and_worst(total, meaning, 1.0)] == [0, 2]


def test_a_rater_prefers_as_its_temperature_says_and_turns_a_share_round():
    score = torch.tensor([0.6, 0.5]).expand(4000, 2)
    chosen, rejected, flipped = rated_pair(score, list(range(4000)), temperature=0.1, flips=0.0, tie=0.02)
    # sigmoid(1) = .731
    assert abs((chosen == 0).float().mean().item() - 0.731) < 0.03
    assert not flipped.any()
    assert (chosen + rejected == 1).all()
    cold = rated_pair(score, list(range(4000)), temperature=1e-3, flips=0.1, tie=0.02)
    assert abs(cold[2].float().mean().item() - 0.1) < 0.02
    assert torch.equal(cold[0] == 1, cold[2])  # certain verdicts, but for those turned round


def test_ties_are_left_out_where_another_pair_is_none():
    score = torch.tensor([[0.5, 0.5, 0.9]] * 50)
    chosen, rejected, _ = rated_pair(score, list(range(50)), temperature=1e-3, flips=0.0, tie=0.02)
    assert (chosen == 2).all()
    assert set(rejected.tolist()) == {0, 1}
    all_ties = rated_pair(torch.tensor([[0.5, 0.5, 0.51]]), [0], temperature=1e-3, flips=0.0, tie=0.02)
    assert all_ties[0].item() == 2


def test_a_rater_sees_what_is_worse():
    prompt = "a large red circle moves right slowly over a gray plain background"
    frames = clip(prompt, 9)
    shuffled = frames[:, torch.tensor([2, 0, 1, 5, 3, 4, 8, 6, 7])]
    noisy = (frames + 0.2 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    score = OverallScore().score(torch.cat((frames, shuffled, noisy)), [prompt] * 3)
    assert score[0] > score[1:].max()
    seen = aspects(frames, [prompt])
    assert seen.keys() == set(ASPECTS)
    assert seen["text"].item() == 1.0

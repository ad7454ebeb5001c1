"""Self-paced GRPO: sparsity, gates and shares by hand, and the limits in which it is the plain group advantage."""

from __future__ import annotations

import pytest
import torch

from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import group_advantage
from astro_cli.advantages.self_paced import Advantage, Config, hoyer, shares
from astro_cli.config.errors import RunError

REWARDS = torch.tensor([[0.9, 0.8, 0.85, 0.95], [0.6, 0.5, 0.7, 0.9], [0.1, 0.3, 0.2, 0.8]])  # of four samples
UNIT = dict.fromkeys(("vq", "mq", "ta"), (0.0, 1.0))


def scored(rewards_JPG: torch.Tensor, base: dict[str, torch.Tensor] | None = None) -> Scored:
    scores = dict(zip(("vq", "mq", "ta"), rewards_JPG, strict=False))
    return Scored(scores, dict.fromkeys(scores, 1.0), ["p"] * rewards_JPG.shape[1], base=base)


def test_sparsity_by_hand():
    # (2 - 1 / 1) / 1 = 1 of one that is not 0; equal ones: |r|_1 / |r|_2 = sqrt(4), so 0; nothing at all: 0
    found = hoyer(torch.tensor([[1.0, 0, 0, 0], [0.5] * 4, [0.0] * 4]))
    assert found.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    assert hoyer(torch.tensor([0.2, 0.4, 0.6, 0.8])).item() == pytest.approx(0.1742581, abs=1e-6)
    assert hoyer(REWARDS).tolist() == pytest.approx([0.0040692, 0.0463486, 0.4148122], abs=1e-6)


def test_sparsity_ignores_scale_and_order():
    values = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hoyer(3.7 * values), hoyer(values), atol=1e-6, rtol=0)
    torch.testing.assert_close(hoyer(values[:, torch.randperm(8)]), hoyer(values), atol=1e-6, rtol=0)


def test_shares_by_hand():
    # g = sigmoid(mean - .75) + .3 (S_j - S_{j+1}) = .5185256, .3707197, .5257560
    found = shares(REWARDS.mean(1)[None], hoyer(REWARDS)[None], torch.full((3,), 0.75), Config())
    assert found[0].tolist() == pytest.approx([0.3484496, 0.3005722, 0.3509782], abs=1e-6)
    assert found.sum().item() == pytest.approx(1.0)
    # T .01 makes the largest gate take nearly all: exp(100 (.5185256 - .5257560)) = .485 beside 1
    sharp = shares(REWARDS.mean(1)[None], hoyer(REWARDS)[None], torch.full((3,), 0.75), Config(temperature=0.01))
    assert sharp[0].tolist() == pytest.approx([0.3267, 0.0, 0.6733], abs=1e-3)


def test_the_credit_is_the_group_advantage_of_the_shared_reward():
    credit = Advantage(Config(ranges=UNIT)).credit(scored(REWARDS[:, None]), {})
    share = torch.tensor([0.3484496, 0.3005722, 0.3509782])
    expected = group_advantage((share[:, None] * REWARDS).sum(0)[None], "group")
    torch.testing.assert_close(credit.terms[0].value, expected, atol=1e-4, rtol=0)
    assert credit.metrics["share/ta"] == pytest.approx(0.3509782, abs=1e-5)
    assert credit.metrics["competence/vq"] == pytest.approx(0.875)
    assert credit.metrics["zero_variance_groups"] == 0


def test_equal_rewards_share_equally_and_are_the_plain_group_advantage():
    """Without sparsity all gates are the same; with it only the last differs, and what they share is one reward."""
    same = REWARDS[1].expand(3, 1, 4)
    for sparsity in (0.0, 0.3):
        credit = Advantage(Config(ranges=UNIT, sparsity=sparsity)).credit(scored(same), {})
        torch.testing.assert_close(credit.terms[0].value, group_advantage(REWARDS[1][None], "group"))
        if not sparsity:
            assert [credit.metrics[f"share/{key}"] for key in UNIT] == pytest.approx([1 / 3] * 3)


def test_permuted_samples_have_permuted_credit():
    order = torch.tensor([2, 0, 3, 1])
    rule = Advantage(Config(ranges=UNIT))
    both = (REWARDS, REWARDS[:, order])
    plain, mixed = (rule.credit(scored(rewards[:, None]), {}).terms[0].value for rewards in both)
    torch.testing.assert_close(mixed, plain[:, order])


def test_statistics_of_the_epoch_give_every_group_the_same_shares():
    two = torch.stack((REWARDS, REWARDS.flip(0)), 1)
    rule = Advantage(Config(ranges=UNIT, statistics="epoch"))
    credit = rule.credit(scored(two), {})
    mean, sparsity = two.mean(2).mean(1), hoyer(two).mean(1)
    share = shares(mean[None], sparsity[None], torch.full((3,), 0.75), Config())
    expected = group_advantage((share[0, :, None, None] * two).sum(0), "group")
    torch.testing.assert_close(credit.terms[0].value, expected, atol=1e-5, rtol=0)


def test_thresholds_may_differ_by_reward():
    high = Advantage(Config(ranges=UNIT, thresholds={"vq": 5.0, "mq": 0.75, "ta": 0.75}))
    assert high.credit(scored(REWARDS[:, None]), {}).metrics["share/vq"] < 0.3


def test_ranges_come_from_the_base_once_and_are_kept():
    """Base 0 .. 10: the 10 % and 90 % quantiles 1 and 9 become 0 and 1; a cap at 50 % saturates what is above 5."""
    base = dict.fromkeys(("vq", "mq", "ta"), torch.arange(11.0)[None])
    rule = Advantage(Config(quantiles=(0.1, 0.9), caps={"ta": 0.5}))
    state: dict[str, torch.Tensor] = {}
    rewards = torch.tensor([[1.0, 5.0, 9.0, 20.0]]).expand(3, 1, 4)
    first = rule.credit(scored(rewards, base), state)
    assert state["range.vq"].tolist() == pytest.approx([1.0, 9.0])
    assert state["range.ta"].tolist() == pytest.approx([1.0, 5.0])
    assert first.metrics["competence/vq"] == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    assert first.metrics["competence/ta"] == pytest.approx((0 + 1 + 1 + 1) / 4)
    again = rule.credit(scored(rewards, {key: 3 * value for key, value in base.items()}), state)
    assert torch.equal(again.terms[0].value, first.terms[0].value)


def test_saturated_rewards_are_counted_as_groups_that_teach_nothing():
    credit = Advantage(Config(ranges=dict.fromkeys(UNIT, (0.0, 0.05)))).credit(scored(REWARDS[:, None]), {})
    assert credit.metrics["zero_variance_groups"] == 1.0
    assert credit.terms[0].value.abs().max() == 0


def test_a_base_that_never_differs_has_no_range():
    base = dict.fromkeys(("vq", "mq", "ta"), torch.full((2, 4), 0.4))
    with pytest.raises(RunError, match=r"advantage: ranges.vq: found \[0.4, 0.4\] of the base's scores"):
        Advantage(Config()).credit(scored(REWARDS[:, None], base), {})


def test_names_that_are_no_optimised_reward_are_found_before_a_run():
    for keys, says in (
        ({"thresholds": {"vq": 0.5}}, "thresholds.mq: missing"),
        ({"ranges": {"vqq": (0.0, 1.0)}}, "ranges.vqq: no reward that is optimised, did you mean 'vq'?"),
        ({"caps": {"ta": 0.9}}, "caps.ta: no reward"),
    ):
        assert Advantage(Config(**keys)).misnamed(["vq", "mq"]).startswith(says)
    assert Advantage(Config(thresholds={"vq": 0.5, "mq": 0.4}, caps={"mq": 0.9})).misnamed(["vq", "mq"]) == ""

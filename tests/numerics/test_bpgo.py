"""BPGO: weights of groups and transformed rewards by hand, and the limits in which it is the group advantage."""

from __future__ import annotations

import math

import pytest
import torch

from astro_cli.advantages.base import Scored
from astro_cli.advantages.bpgo import (
    Advantage,
    Config,
    contrasted,
    posterior_reliability,
    released_contrast,
    reliability,
)
from astro_cli.advantages.group import group_advantage
from astro_cli.config.errors import RunError


def told(reward_PG: torch.Tensor, prior_PN: torch.Tensor, base_QN: torch.Tensor | None = None) -> Scored:
    names = [f"p{row}" for row in range(len(reward_PG))]
    base = prior_PN if base_QN is None else base_QN
    return Scored({"ta": reward_PG}, {"ta": 1.0}, names, base={"ta": base}, prior={"ta": prior_PN})


def rewards(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 8, generator=torch.Generator().manual_seed(seed))


def raw(**keys) -> Config:
    return Config(standardise=False, **keys)


def test_the_weight_of_a_group_by_hand():
    # alpha .5, k 1: difference -1 -> .768941, 0 -> 1, .5 -> 1.122459
    found = reliability(torch.tensor([1.6, 2.6, 3.1]), torch.full((3,), 2.6), 0.5, 1.0)
    assert found.tolist() == pytest.approx([0.768941, 1.0, 1.122459], abs=1e-6)


def test_the_weight_of_a_group_is_monotone_and_bounded():
    means = torch.linspace(-50, 50, 101)
    found = reliability(means, torch.zeros(101), 0.5, 1.0)
    assert (found.diff() >= 0).all()
    assert (found.min().item(), found.max().item()) == pytest.approx((0.5, 1.5))


def test_a_transformed_reward_by_hand():
    # prior 2.6, lambda 1: (.1 + 1) exp(2.7) = 16.367705; -.1 exp(2.5) = -1.218249
    found = contrasted(torch.tensor([[2.7, 2.5]]), torch.tensor([2.6]), 1.0)
    assert found[0].tolist() == pytest.approx([16.367705, -1.218249], abs=1e-5)
    # lambda 0: the indicator times exp(R)
    assert contrasted(torch.tensor([[2.7, 2.5]]), torch.tensor([2.6]), 0.0)[0].tolist() == pytest.approx(
        [math.exp(2.7), 0.0]
    )
    # the exponent ends at 30
    assert contrasted(torch.tensor([[40.0]]), torch.tensor([0.0]), 1.0).item() == pytest.approx(41 * math.exp(30))


def test_the_released_forms_by_hand():
    # a 50, tau 5: (5 + 1) 2.7 / (1 + exp(-.54)) = 10.235361; -5 x 2.5 / (1 + exp(-.5)) = -7.780742
    found = released_contrast(torch.tensor([[2.7, 2.5]], dtype=torch.float64), torch.tensor([2.6]).double(), 50.0, 5.0)
    assert found[0].tolist() == pytest.approx([10.235361, -7.780742], abs=1e-5)
    # s^2 .0166667, posterior variance .00414938 and mean 2.6497925, P .7802352
    group = torch.tensor([[2.5, 2.6, 2.7, 2.8]], dtype=torch.float64)
    assert posterior_reliability(group, torch.tensor([2.6]).double(), 1.0).item() == pytest.approx(1.2802352, abs=1e-6)
    same = posterior_reliability(torch.full((1, 4), 3.0), torch.tensor([2.6]), 1.0)
    assert same.item() == pytest.approx(1.5)  # no doubt at all


def test_only_the_bayesian_weight_sees_the_variance():
    narrow, wide = (torch.tensor([[3.0 - s, 3.0 + s, 3.0 - s, 3.0 + s]]) for s in (0.1, 2.0))
    prior = torch.tensor([2.6])
    assert posterior_reliability(narrow, prior, 1.0) > posterior_reliability(wide, prior, 1.0) > 1
    assert reliability(narrow.mean(1), prior, 0.5, 1.0) == pytest.approx(reliability(wide.mean(1), prior, 0.5, 1.0))


@pytest.mark.parametrize("ras", ["paper", "bayes"])
def test_a_group_at_its_prior_has_weight_one(ras):
    reward = torch.tensor([[0.5, 1.5, 0.5, 1.5]])
    [term, *_] = Advantage(raw(ras=ras, crt="none")).credit(told(reward, torch.ones(1, 4)), {}).terms
    assert term.weight is not None
    assert term.weight.item() == pytest.approx(1.0, abs=1e-6)


def test_without_its_mechanisms_it_is_the_group_advantage_bit_for_bit():
    reward, expected = rewards(), group_advantage(rewards(), "group")
    [term] = Advantage(raw(ras="none", crt="none")).credit(told(reward, rewards(1)), {}).terms
    assert torch.equal(term.value, expected)
    assert term.weight is None
    [first, second] = Advantage(raw(alpha=0.0, zeta=0.0)).credit(told(reward, rewards(1)), {}).terms
    assert torch.equal(first.value, expected)
    assert first.weight is not None
    assert second.weight is not None
    assert (first.weight.tolist(), second.weight.tolist()) == ([1.0] * 3, [0.0] * 3)


def test_the_paper_adds_a_second_loss_and_the_release_replaces_the_rewards():
    reward, prior = rewards(), rewards(1)
    first, second = Advantage(raw(zeta=0.5)).credit(told(reward, prior), {}).terms
    assert torch.equal(first.value, group_advantage(reward, "group"))
    assert torch.equal(second.value, group_advantage(contrasted(reward, prior.mean(1), 1.0), "group"))
    assert second.weight is not None
    assert second.weight.tolist() == [0.5] * 3
    [only] = Advantage(raw(crt="replace")).credit(told(reward, prior), {}).terms
    torch.testing.assert_close(only.value, group_advantage(released_contrast(reward, prior.mean(1), 50, 5), "group"))


def test_rewards_are_standardised_over_the_base():
    """A shift and scale of rewards and base together changes nothing, of raw ones it does."""
    reward, prior, base = rewards(), rewards(1), rewards(2)

    def terms(config: Config, scale: float, shift: float) -> list[torch.Tensor]:
        both = [scale * value + shift for value in (reward, prior, base)]
        found = Advantage(config).credit(told(*both), {}).terms
        return [part for term in found for part in (term.value, term.weight) if part is not None]

    for plain, moved in zip(terms(Config(), 1, 0), terms(Config(), 7, 3), strict=True):
        torch.testing.assert_close(moved, plain, atol=2e-3, rtol=0)
    assert not torch.allclose(terms(raw(), 7, 3)[1], terms(raw(), 1, 0)[1], atol=1e-2)
    # standardised with the base's mean and deviation over all its clips
    spread, mean = base.std(), base.mean()
    expected = reliability(((reward - mean) / spread).mean(1), ((prior - mean) / spread).mean(1), 0.5, 1.0)
    torch.testing.assert_close(terms(Config(), 1, 0)[1], expected)


def test_negative_raw_rewards_are_refused_with_what_to_set():
    reward = rewards() - 0.6
    for crt in ("paper", "replace"):
        with pytest.raises(RunError, match=r"rewards down to -0.*standardise = false") as error:
            Advantage(raw(crt=crt)).credit(told(reward, rewards(1)), {})
        assert "standardise = true" in error.value.hint
    Advantage(raw(crt="none")).credit(told(reward, rewards(1)), {})
    Advantage(Config()).credit(told(reward, rewards(1)), {})


def test_the_release_takes_raw_rewards_only():
    with pytest.raises(ValueError, match="standardise: found true with crt = 'replace'"):
        Config(crt="replace")
    # prior -1: the better the sample, the lower R~
    worse_to_better = torch.tensor([[-1.4, -1.2, -0.8, -0.6]])
    turned = released_contrast(worse_to_better, torch.tensor([-1.0]), 50.0, 5.0)
    assert (turned.diff(dim=1) < 0).all()
    rising = released_contrast(worse_to_better + 2, torch.tensor([1.0]), 50.0, 5.0)
    assert (rising.diff(dim=1) > 0).all()


def test_the_log_says_how_far_groups_are_trusted():
    metrics = Advantage(Config()).credit(told(rewards(), rewards(1)), {}).metrics
    assert 0.5 <= metrics["trust_min"] <= metrics["trust"] <= metrics["trust_max"] <= 1.5

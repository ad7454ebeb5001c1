"""Joint rewards (TeleBoost Eq. 3-5): the minimum-norm weights by hand and by their conditions, and their neighbours."""

from __future__ import annotations

import pytest
import torch

from astro_cli.advantages import joint, min_norm
from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import group_advantage
from astro_cli.advantages.min_norm import Advantage, Config


def gram(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def vectors(count: int, seed: int, size: int = 6) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(scores: dict[str, torch.Tensor], weights: dict[str, float] | None = None) -> Scored:
    return Scored(scores, weights or dict.fromkeys(scores, 1.0), ["p"] * len(next(iter(scores.values()))))


def random_scores(count: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {key: torch.randn(4, 8, generator=rng) * (row + 1) for row, key in enumerate("abc"[:count])}


def test_two_vectors_by_hand():
    # |A1|^2 4, |A2|^2 1, A1.A2 0: c1 = (1 - 0) / (4 + 1) = .2; A1.A2 2 > |A2|^2: all of the weight on the shorter one
    assert min_norm.min_norm(gram([[4, 0], [0, 1]])).tolist() == pytest.approx([0.2, 0.8])
    assert min_norm.min_norm(gram([[9, 2], [2, 1]])).tolist() == [0.0, 1.0]
    # of one length, whatever their angle: 1/2, 1/2
    for product in (-1.0, -0.3, 0.9, 1.0):
        assert min_norm.min_norm(gram([[1, product], [product, 1]])).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("product", "expected"), [(0.9, (0.256, 0.256, 0.487)), (-0.5, (0.4, 0.4, 0.2))])
def test_three_vectors_of_one_length_two_of_which_are_correlated(product, expected):
    found = min_norm.min_norm(gram([[1, product, 0], [product, 1, 0], [0, 0, 1]]))
    assert found.tolist() == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_weights_meet_the_conditions_of_the_minimum(count, seed):
    """On the simplex, (M c)_k >= c' M c for all k, and no other weights give less."""
    found_KN = vectors(count, seed)
    matrix = found_KN @ found_KN.T
    weights = min_norm.min_norm(matrix)
    assert weights.min() >= 0
    assert weights.sum().item() == pytest.approx(1.0)
    least = weights @ matrix @ weights
    assert (matrix @ weights >= least - 1e-6 * matrix.diagonal().max()).all()
    others = torch.distributions.Dirichlet(torch.ones(count, dtype=torch.float64)).sample((200,))
    assert ((others @ matrix) * others).sum(1).min() >= least - 1e-9


def test_two_vectors_by_frank_wolfe_are_those_of_the_closed_form():
    """A third vector that is far too long gets nothing, and the other two what they have alone."""
    for seed in range(4):
        pair = vectors(2, seed)
        three = torch.cat((pair, 1e3 * pair.sum(0, keepdim=True)))
        alone, among = min_norm.min_norm(pair @ pair.T), min_norm.min_norm(three @ three.T, tolerance=1e-16)
        if (pair @ three[2]).min() >= 0:  # else it takes part
            torch.testing.assert_close(among[:2], alone, atol=1e-4, rtol=0)


def test_a_duplicate_shares_the_weight_of_one():
    a, b = vectors(2, 1)
    one, two = (min_norm.min_norm(rows @ rows.T) for rows in (torch.stack((a, b)), torch.stack((a, a, b))))
    assert (two[0] + two[1]).item() == pytest.approx(one[0].item(), abs=1e-5)
    assert min_norm.min_norm(torch.ones(4, 4)).tolist() == [0.25] * 4  # equal ones: 1 / K


def test_the_credit_is_the_sum_of_the_rewards_losses_with_their_weights():
    told = scored(random_scores())
    credit = Advantage(Config(renorm=False)).credit(told, {})
    assert len(credit.terms) == 3
    own = [group_advantage(value, "none") for value in told.scores.values()]
    stacked = torch.stack(own).flatten(1).double()
    expected = min_norm.min_norm(stacked @ stacked.T)
    for row, term in enumerate(credit.terms):
        assert torch.equal(term.value, own[row])
        assert term.weight is not None
        torch.testing.assert_close(term.weight, expected[row].float().expand(4))
        assert credit.metrics[f"weight/{'abc'[row]}"] == pytest.approx(expected[row].item())
    combined = Advantage(Config(renorm=False, loss="combined")).credit(told, {})
    torch.testing.assert_close(combined.terms[0].value, credit.per_sample())
    assert credit.metrics["norm/combined"] == pytest.approx(credit.per_sample().norm().item(), rel=1e-5)
    renormed = Advantage(Config()).credit(told, {})
    assert renormed.per_sample().std().item() == pytest.approx(1.0, abs=1e-5)
    assert [term.value.std().item() for term in renormed.terms] == pytest.approx([1.0] * 3, abs=1e-5)


def test_a_reward_on_another_scale_moves_the_sum_and_not_the_balance():
    """Ten times the scale of one reward: the sum of centred advantages follows it, min-norm's turns to the others."""
    plain = random_scores()
    scaled = plain | {"a": 10 * plain["a"]}

    def agreement(rule, scores: dict[str, torch.Tensor]) -> float:
        credit = rule.credit(scored(scores), {}).per_sample().flatten()
        return torch.corrcoef(torch.stack((credit, group_advantage(plain["a"], "none").flatten())))[0, 1].item()

    summed, balanced = joint.Advantage(joint.Config(scale="none")), Advantage(Config())
    assert agreement(summed, scaled) > 0.9 > agreement(summed, plain)
    assert agreement(balanced, scaled) < agreement(balanced, plain)


def test_a_reward_that_never_differs_is_left_out_instead_of_taking_all():
    scores = random_scores()
    still = scores | {"b": torch.full((4, 8), 0.7)}
    credit = Advantage(Config()).credit(scored(still), {})
    assert credit.metrics["weight/b"] == 0.0
    assert credit.metrics["left_out"] == pytest.approx(1 / 3)
    assert credit.per_sample().abs().max() > 0.1
    two = Advantage(Config()).credit(scored({"a": scores["a"], "c": scores["c"]}), {})
    torch.testing.assert_close(credit.per_sample(), two.per_sample(), atol=1e-5, rtol=0)
    none = Advantage(Config()).credit(scored({key: torch.ones(4, 8) for key in scores}), {})
    assert none.per_sample().abs().max() == 0


def test_each_group_may_have_weights_of_its_own():
    credit = Advantage(Config(over="group", renorm=False)).credit(scored(random_scores()), {})
    weights = torch.stack([term.weight for term in credit.terms if term.weight is not None], 1)
    assert weights.shape == (4, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert len({tuple(row) for row in weights.tolist()}) == 4


def test_the_plain_sum_is_a_loss_per_reward_and_gdpo_one_of_unit_deviation():
    told = scored(random_scores(2), {"a": 2.0, "b": 0.5})
    summed = joint.Advantage(joint.Config()).credit(told, {})
    for term, (key, weight) in zip(summed.terms, told.weights.items(), strict=True):
        assert torch.equal(term.value, group_advantage(told.scores[key], "group"))
        assert term.weight is not None
        assert term.weight.tolist() == [weight] * 4
    [gdpo] = joint.Advantage(joint.Config(combine="gdpo")).credit(told, {}).terms
    assert (gdpo.value.mean().item(), gdpo.value.std().item()) == pytest.approx((0.0, 1.0), abs=1e-3)
    total = summed.per_sample()
    torch.testing.assert_close(gdpo.value, (total - total.mean()) / (total.std() + 1e-4))


def test_one_reward_is_its_group_advantage():
    told = scored(random_scores(1), {"a": 1.0})
    expected = group_advantage(told.scores["a"], "group")
    assert torch.equal(joint.Advantage(joint.Config()).credit(told, {}).per_sample(), expected)
    alone = Advantage(Config(scale="group", renorm=False)).credit(told, {})
    torch.testing.assert_close(alone.per_sample(), expected)


def test_a_reward_without_a_weight_takes_no_part():
    told = scored(random_scores(), {"a": 1.0, "b": 0.0, "c": 1.0})
    assert len(Advantage(Config()).credit(told, {}).terms) == 2
    assert len(joint.Advantage(joint.Config()).credit(told, {}).terms) == 2

"""Forward-process RL (Astrolabe Eq. 1, 2, 4): hand-worked values and limit cases."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from test_long_tuning import batch, run_context

from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import Advantage, Config, group_advantage
from astro_cli.core.credit import Term
from astro_cli.core.flow import add_noise, unshift_sigma, warp_timesteps, x0_from_velocity
from astro_cli.models import lora
from astro_cli.objectives.base import Batch
from astro_cli.objectives.nft import Config as LossConfig
from astro_cli.objectives.nft import Objective, branch_error, implicit_velocities, optimality, policy_loss


def test_interpolation_by_hand():
    # beta .5, v_theta 3, v_old 1: v+ = .5 * 1 + .5 * 3 = 2; v- = 1.5 * 1 - .5 * 3 = 0
    positive, negative = implicit_velocities(torch.tensor(3.0), torch.tensor(1.0), 0.5)
    assert (positive.item(), negative.item()) == (2.0, 0.0)


def test_beta_one_puts_theta_on_the_positive_side():
    # beta 1: v+ = v_theta, v- = 2 v_old - v_theta
    positive, negative = implicit_velocities(torch.tensor(3.0), torch.tensor(1.0), 1.0)
    assert (positive.item(), negative.item()) == (3.0, -1.0)


def test_optimality_by_hand():
    # A_max 5: 0 -> 1/2, 2.5 -> .75, -5 -> 0, 50 -> 1 (clipped)
    assert optimality(torch.tensor([0.0, 2.5, -5.0, 50.0]), 5.0).tolist() == [0.5, 0.75, 0.0, 1.0]


def test_loss_by_hand():
    # v_theta 3, v_old 1, target 2, beta 1, r = .75: .75 (3 - 2)^2 + .25 (-1 - 2)^2 = .75 + 2.25 = 3
    one = torch.ones(1, 1)
    assert policy_loss(3 * one, one, 2 * one, torch.tensor([0.75]), 1.0).item() == 3.0


def gradient(r: float, beta: float = 1.0) -> tuple[float, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    v_old, target = torch.randn(1, 6, generator=rng), torch.randn(1, 6, generator=rng)
    v_theta = v_old.clone().requires_grad_()
    loss = policy_loss(v_theta, v_old, target, torch.tensor([r]), beta).sum()
    loss.backward()
    assert v_theta.grad is not None
    return loss.item(), v_theta.grad


def test_at_theta_old_the_loss_does_not_depend_on_r():
    assert len({round(gradient(r)[0], 6) for r in (0.0, 0.3, 0.5, 1.0)}) == 1


def test_at_theta_old_the_gradient_is_proportional_to_two_r_minus_one():
    full = gradient(1.0)[1]
    for r in (0.0, 0.25, 0.5, 0.9):
        assert torch.allclose(gradient(r)[1], (2 * r - 1) * full, atol=1e-6)
    assert gradient(0.5)[1].abs().max() == 0


def test_gradient_scales_with_beta_at_theta_old():
    assert torch.allclose(gradient(1.0, beta=0.1)[1], 0.1 * gradient(1.0, beta=1.0)[1], atol=1e-7)


@pytest.mark.parametrize(
    ("scale", "outer"),
    [
        # Deviations from the group's mean 2.5 are 1.5 and 0.5. Of the group: var 5 / 3, std 1.29099; of all 8: mean
        # 3.75, var 17.5 / 7, std 1.58114; as released 17.5 / 8, std 1.47902. EPSILON is 1e-4.
        ("group", 1.1618),
        ("global", 0.9486),
        ("released", 1.0141),
        ("none", 1.5),
    ],
)
def test_the_deviations_that_divide(scale, outer):
    found = group_advantage(torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]]), scale)
    expected = torch.tensor([-outer, -outer / 3, outer / 3, outer])
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=0)
    assert found[1].tolist() == [0.0] * 4


def test_group_advantage_by_hand():
    # group (1, 3): mean 2 -> (-1, 1); group (5, 5) -> zeros. Deviation of all four rewards 1, 3, 5, 5 (unbiased):
    # sqrt(11 / 3)
    rewards = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    assert group_advantage(rewards, "none").tolist() == [[-1.0, 1.0], [0.0, 0.0]]
    scaled = group_advantage(rewards, "global")
    assert torch.allclose(scaled[0], torch.tensor([-1.0, 1.0]) / ((11 / 3) ** 0.5 + 1e-4))
    per_group = group_advantage(rewards, "group")
    assert torch.allclose(per_group[0], torch.tensor([-1.0, 1.0]) / (2**0.5 + 1e-4))
    assert per_group[1].tolist() == [0.0, 0.0]


def test_group_credit_is_the_advantage_of_the_weighted_sum():
    # 2 * (1, 0) + .5 * (0, 4) = (2, 2); 2 * (0, 1) + .5 * (2, 2) = (1, 3): centred (0, 0), (-1, 1)
    scores = {"vq": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "mq": torch.tensor([[0.0, 4.0], [2.0, 2.0]])}
    credit = Advantage(Config(scale="none")).credit(Scored(scores, {"vq": 2.0, "mq": 0.5}, ["a", "b"]), {})
    assert [term.value.tolist() for term in credit.terms] == [[[0.0, 0.0], [-1.0, 1.0]]]
    assert credit.terms[0].weight is None


def test_terms_of_credit_are_losses_that_are_added_with_their_weights():
    """Not the loss of the added credits: each term is clipped on its own."""
    here, first, second = run_context(), torch.tensor([9.0, 2.0]), torch.tensor([-8.0, 1.0])
    weights = torch.tensor([0.5, 2.0])

    def loss(*terms: Term) -> torch.Tensor:
        return Objective(LossConfig(), here).loss("student", replace(batch(0), credit=terms)).loss

    each = {name: loss(Term(value)) for name, value in (("first", first), ("second", second), ("sum", first + second))}
    assert torch.allclose(loss(Term(first), Term(second)), each["first"] + each["second"])
    assert not torch.allclose(each["sum"], each["first"] + each["second"])
    weighted = loss(Term(first, weights))
    alone = [
        Objective(LossConfig(), here).loss("student", replace(batch(0), credit=(Term(first),)).rows(i, i + 1)).loss
        for i in (0, 1)
    ]
    assert torch.allclose(weighted, (0.5 * alone[0] + 2.0 * alone[1]) / 2)


def test_credit_ignores_shift_and_scale_of_rewards():
    rewards = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    for scale in ("global", "group"):
        assert torch.allclose(group_advantage(rewards, scale), group_advantage(rewards * 4 + 7, scale), atol=1e-3)


def test_released_deviation_by_hand():
    # rewards 1, 3, 5, 5: population variance 11 / 4
    scaled = group_advantage(torch.tensor([[1.0, 3.0], [5.0, 5.0]]), "released")
    assert torch.allclose(scaled[0], torch.tensor([-1.0, 1.0]) / ((11 / 4) ** 0.5 + 1e-4))


def test_x0_error_by_hand():
    # v 3 and 1, target 1: velocity errors 2 and 0; at sigma .5 and 1 those of x0 are 1 and 0, mean square .5
    v, target = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1, 1), torch.ones(1, 2, 1, 1, 1)
    sigma = torch.tensor([[0.5, 1.0]])
    assert branch_error(v, target).item() == 2.0
    assert branch_error(v, target, sigma).item() == 0.5
    # adaptive: .5 / mean |error| = .5 / .5
    assert branch_error(v, target, sigma, adaptive=True).item() == 1.0


def test_x0_loss_is_the_loss_on_x0_predictions():
    rng = torch.Generator().manual_seed(4)
    x0, noise, v_theta, v_old = (torch.randn(2, 3, 1, 2, 2, generator=rng) for _ in range(4))
    sigma, r = torch.tensor([[1.0, 0.8, 0.6], [0.9, 0.9, 0.5]]), torch.tensor([0.2, 0.9])
    x_t = add_noise(x0, noise, sigma)
    predicted, old = x0_from_velocity(x_t, v_theta, sigma), x0_from_velocity(x_t, v_old, sigma)
    released = policy_loss(predicted, old, x0, r, 0.1)  # x0+- mixed as velocities are
    assert torch.allclose(policy_loss(v_theta, v_old, noise - x0, r, 0.1, sigma), released, atol=1e-5)


def test_the_adaptive_weight_carries_no_gradient_and_has_a_floor():
    # d/dv of e^2 / stopgrad|e| with e = v - 1: 2 e / |e| = 2 at v = 3 (with the gradient through |e| it would be 1)
    v, one = torch.full((1, 1, 1, 1, 1), 3.0, requires_grad=True), torch.ones(1, 1, 1, 1, 1)
    branch_error(v, one, torch.ones(1, 1), adaptive=True).sum().backward()
    assert v.grad is not None
    assert v.grad.item() == 2.0
    assert branch_error(one, one, torch.ones(1, 1), adaptive=True).item() == 0.0


def test_unshift_inverts_the_flow_shift():
    steps = torch.tensor([1000, 750, 500, 250], dtype=torch.float64)
    for shift in (1.0, 4.0, 5.0):
        assert torch.allclose(1000 * unshift_sigma(warp_timesteps(tuple(steps.tolist()), shift) / 1000, shift), steps)


@pytest.mark.parametrize(("options", "key"), [({"adaptive": True}, "adaptive"), ({"reference": "reset"}, "reference")])
def test_options_that_do_not_go_together_are_refused(options, key):
    with pytest.raises(ValidationError, match=f"{key}: found"):
        LossConfig(**options)


def test_common_noise_cancels_in_the_gradient_of_a_group_with_centred_credit():
    # sigma 1, two samples, r = 1 and 0, v_theta = v_old = v: dL/dv = (2 r - 1) 2 (v - (eps - x0)) per sample; with one
    # eps the sum is
    # 2 (v - eps + x0_1) - 2 (v - eps + x0_2) = 2 (x0_1 - x0_2): no eps left
    rng = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 6, generator=rng), torch.randn(1, 6, generator=rng).expand(2, 6)
    v = torch.zeros(6, requires_grad=True)
    policy_loss(v.expand(2, 6), v.detach().expand(2, 6), eps - x0, torch.tensor([1.0, 0.0]), 1.0).sum().backward()
    assert v.grad is not None
    assert torch.allclose(v.grad, 2 * (x0[0] - x0[1]) / 6, atol=1e-6)  # / 6: the squared norm is a mean over entries


def test_group_draws_are_common_within_and_differ_between_groups():
    batch = Batch(seeds=[1, 2, 3], prompts=["", "", ""], group_seeds=[7, 7, 8])
    x = torch.zeros(3, 6, 1, 2, 2)
    for draws, common in (("group", True), ("sample", False)):
        objective = Objective.__new__(Objective)  # only what draws need of it
        objective.config = LossConfig(draws=draws)
        noise = objective._drawn(batch).noise_like(x, "noise")
        assert torch.equal(noise[0], noise[1]) is common
        assert not torch.equal(noise[1], noise[2])


def test_an_old_policy_equal_to_the_new_one_is_reported_after_the_first_step():
    here = run_context()
    network = here.roles.modules["student"].float()
    samples = batch(0)
    samples = replace(
        samples, **{name: getattr(samples, name).float() for name in ("text_BMD", "latents_BFCHW", "history_PFCHW")}
    )
    objective = Objective(LossConfig(old_decay=0.0), here)

    def step(number: int) -> tuple[float, str]:
        found = objective.loss("student", samples).metrics["old_difference"]
        objective.after_step(number)  # theta_old <- theta
        return found, objective.warning

    difference, warning = step(1)
    assert difference > 1e-3
    assert warning == ""
    difference, warning = step(0)  # before the first update they are equal by construction
    assert difference < 1e-6
    assert warning == ""
    difference, warning = step(1)
    assert difference < 1e-6
    assert "contrast of NFT vanishes" in warning
    for value in lora.adapter_state(network, "default").values():
        value.data += 0.1
    assert step(2)[1] == ""  # it is taken back


def test_the_difference_is_a_mean_of_absolute_values():
    # v_theta (3, -1), v_old (1, 1): (2 + 2) / 2 = 2; the squared one is (4 + 4) / 2 = 4
    objective = Objective.__new__(Objective)
    v_theta, v_old = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1, 1), torch.ones(1, 2, 1, 1, 1)
    metrics = objective._metrics(v_theta, v_old, v_theta, torch.ones(1, 2), torch.tensor([0.5]))
    assert (metrics["old_difference"], metrics["old_deviation"]) == (2.0, 4.0)

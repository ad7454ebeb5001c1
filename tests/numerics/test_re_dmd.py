"""Rewarded distribution matching distillation: weights by hand, its limits, what carries gradients, what is logged."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_dmd import batch, run_context  # noqa: F401  (a fixture)

from astro_cli.models.decoding import StreamingDecoder
from astro_cli.objectives import dmd, re_dmd
from astro_cli.objectives.base import Batch
from astro_cli.spec import OptimSpec
from astro_cli.training.optim import RoleOptimizer

FOUR = ["a", "b", "a", "b"]


@pytest.fixture
def scored(run_context):  # noqa: F811
    """The run context with a decoder and a reward whose scores the test sets."""
    run_context.decoder = lambda: StreamingDecoder(lambda latents, features: (latents[:, :, :1], features), [])
    run_context.scores = torch.tensor([0.3, -0.3])
    run_context.seen = []

    def score(frames, prompts):
        run_context.seen.append((frames, prompts))
        return run_context.scores[: len(prompts)]

    run_context.reward = lambda key: score
    for role in ("critic", "teacher"):  # with a head that says something
        torch.nn.init.normal_(run_context.roles.modules[role].proj_out.weight, std=0.3)
    return run_context


def objective(run_context, **keys) -> re_dmd.Objective:  # noqa: F811
    return re_dmd.Objective(re_dmd.Config(**keys), run_context)


def test_weights_by_hand():
    # R .3 and -.3 at the paper's beta 1/2: exp(+-.6) = 1.822119, .548812, a ratio of e^1.2 = 3.32
    # the ratios at beta 1, 1/2, 1/3, 1/5 are e^.6 = 1.82, e^1.2 = 3.32, e^1.8 = 6.05, e^3 = 20.09
    reward = torch.tensor([0.3, -0.3])
    assert re_dmd.reward_weights(reward, 0.5).tolist() == pytest.approx([1.822119, 0.548812], abs=1e-6)
    ratios = [(w := re_dmd.reward_weights(reward, beta))[0] / w[1] for beta in (1.0, 1 / 2, 1 / 3, 1 / 5)]
    assert torch.stack(ratios).tolist() == pytest.approx([1.8221, 3.3201, 6.0496, 20.0855], abs=1e-4)
    # the exponent 2 / .5 = 4 is cut at 1.5: e^1.5
    assert re_dmd.reward_weights(torch.tensor([2.0]), 0.5, clamp=1.5).item() == pytest.approx(math.exp(1.5))


def test_the_released_rule_multiplies_by_beta_and_weighs_all_by_one_sample():
    # exp(2 * .3) for both, whatever the second's reward is
    weights = re_dmd.released_weights(torch.tensor([0.3, -0.3]), 2.0)
    assert weights.tolist() == pytest.approx([math.exp(0.6)] * 2)


def test_rewards_are_centred_on_their_prompt():
    # a: 1 and 3, mean 2; b: 0 and 10, mean 5
    assert re_dmd.centered(torch.tensor([1.0, 0.0, 3.0, 10.0]), FOUR).tolist() == [-1.0, -5.0, 1.0, 5.0]
    assert re_dmd.centered(torch.tensor([4.0, 4.0]), ["a", "b"]).tolist() == [0.0, 0.0]


def test_effective_samples():
    # equal weights: all four; weights 3, 1: 16 / 10 = 1.6; one weight that is all: 1
    assert re_dmd.effective_sample_size(torch.full((4,), 7.0)) == pytest.approx(4.0)
    assert re_dmd.effective_sample_size(torch.tensor([3.0, 1.0])) == pytest.approx(1.6)
    assert re_dmd.effective_sample_size(torch.tensor([1e300, 1.0], dtype=torch.float64)) == pytest.approx(1.0)


def gradients(run_context, loss) -> dict[str, torch.Tensor]:  # noqa: F811
    run_context.roles.modules["student"].zero_grad(set_to_none=True)
    loss.backward()
    named = run_context.roles.modules["student"].named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def test_an_infinite_beta_is_dmd_bit_for_bit(scored):
    plain = dmd.Objective(dmd.Config(), scored).loss("student", batch())
    rewarded = objective(scored, beta=1e30).loss("student", batch())
    assert torch.equal(rewarded.loss, plain.loss)
    expected, found = gradients(scored, plain.loss), gradients(scored, rewarded.loss)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_each_sample_counts_by_its_own_reward(scored):
    """The gradient is the mean of w_i times each sample's own."""
    weights = re_dmd.reward_weights(scored.scores, 0.5)
    found = gradients(scored, objective(scored).loss("student", batch()).loss)
    alone = []
    for row in range(2):
        one = batch().rows(row, row + 1)
        alone.append(gradients(scored, dmd.Objective(dmd.Config(), scored).loss("student", one).loss))
    for name, value in found.items():
        expected = (weights[0] * alone[0][name] + weights[1] * alone[1][name]) / 2
        torch.testing.assert_close(value, expected.to(value), atol=1e-6, rtol=1e-4)
    assert any(value.abs().max() > 1e-4 for value in found.values())


def test_a_constant_reward_scales_the_loss_and_leaves_the_same_parameters_after_a_step_of_adam(scored):
    scored.scores = torch.full((2,), 0.7)
    plain, rewarded = dmd.Objective(dmd.Config(), scored), objective(scored)
    factor = math.exp(0.7 / 0.5)
    assert rewarded.loss("student", batch()).loss.item() == pytest.approx(
        factor * plain.loss("student", batch()).loss.item()
    )
    student, after = scored.roles.modules["student"], []
    start = copy.deepcopy(student.state_dict())
    for method in (plain, rewarded):
        student.load_state_dict(start)
        optimizer = RoleOptimizer(OptimSpec(lr=1e-3, eps=1e-20, clip=1e-6), scored.roles.trainable("student"))
        method.loss("student", batch()).loss.backward()
        optimizer.step(1e-3)
        after.append(copy.deepcopy(student.state_dict()))
    moved = max((after[0][name] - start[name]).abs().max().item() for name in start)
    assert moved == pytest.approx(1e-3, rel=0.05)
    for name, value in after[0].items():
        torch.testing.assert_close(after[1][name], value, atol=2e-6, rtol=0)


def test_no_gradient_passes_through_reward_and_decoder(scored):
    """A reward that would reward large latents, were it differentiated, leaves the gradient as it is."""
    expected = gradients(scored, objective(scored).loss("student", batch()).loss)
    scored.reward = lambda key: lambda frames, prompts: scored.scores + 0.0 * frames.flatten(1).sum(1) * 1e6
    method = objective(scored)
    found = gradients(scored, method.loss("student", batch()).loss)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not method.weights[0].requires_grad


def test_the_reward_sees_the_generated_clip_and_its_prompts(scored):
    named = batch()
    named.prompts[:] = ["one", "two"]
    objective(scored).loss("student", named)
    x = dmd.Objective(dmd.Config(), scored).rollout(named, gradient=False)
    ((frames, prompts),) = scored.seen
    torch.testing.assert_close(frames, x[:, :, :1], atol=1e-5, rtol=0)
    assert not frames.requires_grad
    assert prompts == ["one", "two"]


def test_the_critic_is_dmds(scored):
    plain = dmd.Objective(dmd.Config(), scored).loss("critic", batch())
    assert torch.equal(objective(scored).loss("critic", batch()).loss, plain.loss)
    assert scored.seen == []


def test_the_log_has_the_reward_per_exit_step_and_the_spread_of_the_weights(scored):
    method = objective(scored)
    steps = set()
    for shared in range(8):
        drawn = Batch([1, 2], ["", ""], text_BMD=batch().text_BMD, shared=shared)
        metrics = method.loss("student", drawn).metrics
        steps.add(method.exit_step(drawn))
        assert metrics[f"reward_exit_{method.exit_step(drawn)}"] == metrics["reward"] == pytest.approx(0.0, abs=1e-7)
        assert metrics["weight"] == pytest.approx((1.822119 + 0.548812) / 2)
        told = method.after_step(shared)
        # (1.822119 + .548812)^2 / (1.822119^2 + .548812^2) = 5.621314 / 3.621311
        assert told["weight/effective_samples"] == pytest.approx(1.552286, abs=1e-5)
        assert (told["weight/min"], told["weight/max"]) == pytest.approx((0.548812, 1.822119), abs=1e-6)
        assert told["weight/median"] == pytest.approx(1.185465, abs=1e-6)
    assert len(steps) > 1
    assert method.after_step(9) == {}  # a step of the critic alone


def test_a_centred_reward_that_is_equal_within_prompts_is_dmd(scored):
    scored.scores = torch.tensor([5.0, 5.0])
    plain = dmd.Objective(dmd.Config(), scored).loss("student", batch())
    assert torch.equal(objective(scored, center="prompt").loss("student", batch()).loss, plain.loss)

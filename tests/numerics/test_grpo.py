"""GRPO on a sampler's steps (TeleBoost Eq. 1; DanceGRPO): hand-worked values and limit cases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from astro_cli.advantages.group import group_advantage
from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import RecipeError, RunError
from astro_cli.core.credit import Term
from astro_cli.core.flow import sigma_of, warp_timesteps
from astro_cli.core.rng import sample_noise
from astro_cli.models import lora
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.objectives.grpo import (
    Config,
    Objective,
    chosen_steps,
    clipped_loss,
    divergence,
    log_ratio,
    reduced,
    step_weights,
)
from astro_cli.recipe import load_recipe
from astro_cli.rollout.bidirectional import sample_clips
from astro_cli.rollout.streaming import generate
from astro_cli.sampling.kernel import RENOISE, Kernel
from astro_cli.sampling.ode import guided
from astro_cli.sampling.sampler import few_step_grid
from astro_cli.sampling.trajectory import Recorder, Trajectory
from astro_cli.sampling.transition import Transition, transition
from astro_cli.training.memory import SavedTensors
from tests.tiny_policy import tiny_policy

SHAPE, FRAMES, DANCE, FLOW = (2, 4, 4), 4, Kernel("dance", 0.3), Kernel("flow", 0.7)


def run_context(kernel: Kernel = DANCE, *, bidirectional: bool = True, steps: int = 4) -> RunContext:
    """A tiny policy whose three adapters are the same and not zero."""
    roles = tiny_policy()
    for role in ("old", "ref"):
        lora.blend(roles.modules["student"], role, "default", 0.0)
    even = tuple(1000 * (steps - index) / steps for index in range(steps))
    return RunContext(
        roles=roles,
        steps=warp_timesteps(even, 4.0),
        shift=4.0,
        frames=FRAMES,
        block=2,
        latent_shape=SHAPE,
        cache=CacheSpec(),
        encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
        kernel=kernel,
        bidirectional=bidirectional,
        guidance=2.0 if bidirectional else 1.0,
    )


def move(here: RunContext, by: float = 0.02) -> None:
    """One step of the trained adapter away from the old one."""
    rng = torch.Generator().manual_seed(3)
    for value in lora.adapter_state(here.roles.modules["student"], "default").values():
        value.data += by * torch.randn(value.shape, generator=rng)


def batch(here: RunContext, credit: tuple[Term, ...] = (Term(torch.tensor([1.0, -1.0])),), update: int = 0) -> Batch:
    """Two samples of one prompt, by the old policy."""
    text, recorder = torch.ones(2, 4, 5), Recorder()
    with torch.no_grad(), here.roles.use("old") as old:
        if here.bidirectional:
            velocity = guided(old, text, here.guidance, torch.zeros(2, 4, 5))
            sigmas = sigma_of(few_step_grid(here.steps))
            sample_clips(velocity, [1, 2], (FRAMES, *SHAPE), sigmas, old.device, here.kernel, recorder)
        else:
            generate(old, text, [1, 2], here.stream_spec(), FRAMES, recorder)
    trajectory = recorder.take()
    shared = {"group_B": torch.zeros(2, dtype=torch.long), "group_seeds": [7, 7], "trajectory": trajectory}
    return Batch([1, 2], ["p", "p"], text, trajectory.latents, credit=credit, update=update, **shared)


def losses(here: RunContext, batch: Batch, **keys) -> list:
    return list(Objective(Config(**keys), here).loss("student", batch))


def gradient(here: RunContext, batch: Batch, **keys) -> torch.Tensor:
    network = here.roles.modules["student"]
    network.zero_grad()
    for out in Objective(Config(**keys), here).loss("student", batch):
        out.loss.backward()
    return torch.cat([p.grad.flatten() for _, p in sorted(here.roles.trainable("student")) if p.grad is not None])


def flat_step(kernel: Kernel, mean_by: float = 0.0) -> tuple[Transition, Transition]:
    """The golden step x .8, v -.5, s .7 -> .5 with draw z = 1, and the same replayed with another v."""
    x, v, at = torch.full((1, 1, 1, 1, 1), 0.8), torch.full((1, 1, 1, 1, 1), -0.5), torch.tensor([[700.0]]).double()
    old = transition(kernel, x, v, at, torch.tensor([[500.0]]).double(), torch.ones_like(x))
    return old, old.replay(v + mean_by)


# --- values by hand


def test_the_log_ratio_by_hand():
    # re-noise: mean (1 - .5) (x - .7 v), so v + .1 moves it by -.035; std .5, z 1:
    # log rho = z d / std - d^2 / (2 std^2) = -.07 - .00245 = -.07245
    old, new = flat_step(RENOISE, 0.1)
    assert (new.mean - old.mean).item() == pytest.approx(-0.035, abs=1e-6)
    assert log_ratio(new, old, guard=False).item() == pytest.approx(-0.07245, abs=1e-6)
    # GRPO-Guard, Eq. 8: std (log rho + d^2 / (2 std^2)) = z d
    assert log_ratio(new, old, guard=True).item() == pytest.approx(-0.035, abs=1e-6)
    # the divergence is d^2 / (2 std^2)
    assert divergence(new, old).item() == pytest.approx(0.00245, abs=1e-6)


def test_the_clipped_loss_by_hand():
    # c .2. rho 1.5: A 2 max(-3, -2.4) = -2.4, A -2 max(3, 2.4) = 3; rho .5: A 2 max(-1, -1.6) = -1, A -2 max(1, 1.6)
    advantage, rho = torch.tensor([2.0, -2.0, 2.0, -2.0]), torch.tensor([1.5, 1.5, 0.5, 0.5])
    torch.testing.assert_close(clipped_loss(advantage, rho.log(), 0.2), torch.tensor([-2.4, 3.0, -1.0, 1.6]))
    torch.testing.assert_close(clipped_loss(advantage, rho.log(), None), -advantage * rho)


def test_reductions_by_hand():
    # two channels at two positions: log rho 1, 3 | 2, 6. A sample's: mean 3; weighed by (2, 0): (2 + 4) / 4 = 1.5.
    # A position's: sums over channels 3 and 9
    entries = torch.tensor([[1.0, 3.0], [2.0, 6.0]]).reshape(1, 1, 2, 1, 2)
    places = torch.tensor([2.0, 0.0]).reshape(1, 1, 1, 2)
    assert reduced(entries, None, "sample").tolist() == [3.0]
    assert reduced(entries, places, "sample").tolist() == [1.5]
    assert reduced(entries, places, "position").tolist() == [[[[3.0, 9.0]]]]


def trajectory_of(kernel: Kernel, steps: int = 4, shift: float = 1.0) -> Trajectory:
    here = replace(run_context(kernel, steps=steps), shift=shift)
    here.steps = warp_timesteps(tuple(1000 * (steps - index) / steps for index in range(steps)), shift)
    found = batch(here).trajectory
    assert found is not None
    return found


def test_weights_of_steps_by_hand():
    # levels 1, .75, .5, .25, 0: |ds| .25 everywhere, the last step has no density
    dance = trajectory_of(DANCE)
    assert step_weights("none", dance).tolist() == [1.0, 1.0, 1.0, 0.0]
    # GRPO-Guard, dance: (1 + .09 (1 - s) / (2 s)) / .25 at s = 1, .75, .5
    expected = torch.tensor([4.0, 4 * (1 + 0.09 / 6), 4 * (1 + 0.09 / 2), 0.0])
    torch.testing.assert_close(step_weights("guard", dance), expected.double(), atol=1e-6, rtol=0)
    # TempFlow: std = .7 sqrt(s / (1 - s)) sqrt(.25), at s = 1 with 1 - .75: .7, .606218, .35; mean .552073
    flow = trajectory_of(FLOW)
    expected = torch.tensor([0.7, 0.606218, 0.35, 0.0]) / 0.552073
    torch.testing.assert_close(step_weights("tempflow", flow), expected.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(step_weights("guard", flow), torch.tensor([4.0, 4.0, 4.0, 0.0]).double())


def test_steps_are_drawn_from_those_with_a_density_and_none_twice():
    found = trajectory_of(DANCE)
    assert found.random == (0, 1, 2)
    all_of_them = chosen_steps(found, [1, 2, 3, 4], 1.0, "random")
    assert [sorted(row) for row in all_of_them.tolist()] == [[0, 1, 2]] * 4
    assert len({tuple(row) for row in all_of_them.tolist()}) > 1
    assert chosen_steps(found, [5, 5], 0.7, "random").shape == (2, 2)  # int(3 * .7)
    assert torch.equal(*chosen_steps(found, [5, 5], 0.7, "random"))  # a group's seed, a group's steps
    assert chosen_steps(found, [1, 2], 0.01, "random").shape == (2, 1)  # at least one
    assert chosen_steps(found, [1, 2], 0.7, "first").tolist() == [[0, 1], [0, 1]]  # Flow-GRPO's


@pytest.mark.parametrize("bidirectional", [True, False])
def test_outside_a_window_the_ode_moves_and_nothing_is_trained(bidirectional):
    kernel = replace(DANCE if bidirectional else RENOISE, window=(1, 2))
    here = run_context(kernel, bidirectional=bidirectional)
    found = batch(here).trajectory
    assert found is not None
    assert found.random == (1,)
    assert found.log_prob_RBF.shape == (1, 2, FRAMES)
    assert found.kernel == kernel
    assert [torch.equal(found.states_KBFCHW[k + 1], found.means_SBFCHW[k]) for k in range(4)] == [
        True,
        False,
        True,
        True,
    ]
    assert all(out.metrics["ratio"] == pytest.approx(1.0, abs=1e-6) for out in losses(here, batch(here)))
    with pytest.raises(AssertionError, match="no density"):
        found.pick(torch.tensor([0, 1]))


# --- limits


@pytest.mark.parametrize(("kernel", "bidirectional"), [(DANCE, True), (FLOW, True), (Kernel("cps", 0.8), True),
                                                      (RENOISE, False), (Kernel("cps", 0.8), False)])  # fmt: skip
def test_at_theta_old_ratios_are_one_and_the_gradient_is_a_policy_gradient(kernel, bidirectional):
    """Nothing is clipped; losses of a centred group add up to 0; the gradient is that of -A log pi."""
    here = run_context(kernel, bidirectional=bidirectional)
    sample = batch(here)
    outs = losses(here, sample, clip=1e-4)
    assert len(outs) == 3  # a loss per step that has a density
    for out in outs:
        assert out.metrics["ratio_min"] == pytest.approx(1.0, abs=1e-5)
        assert out.metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)
        assert (out.metrics["clipped"], out.metrics["kl_old"]) == (0.0, pytest.approx(0.0, abs=1e-8))
        assert out.loss.item() == pytest.approx(0.0, abs=1e-5)
    found = gradient(here, sample, clip=1e-4)
    assert found.abs().max() > 0
    torch.testing.assert_close(gradient(here, sample, clip=0.5), found)
    network, trajectory = here.roles.modules["student"], sample.trajectory
    assert trajectory is not None
    network.zero_grad()
    objective = Objective(Config(), here)
    context = objective._context(sample)
    for index in trajectory.random:
        step = trajectory.pick(torch.tensor([index, index]))
        log_prob = objective._replayed("student", sample, step, context).log_prob().mean(1)
        (-(torch.tensor([1.0, -1.0]) * log_prob).mean() / 3).backward()
    plain = torch.cat([p.grad.flatten() for _, p in sorted(here.roles.trainable("student")) if p.grad is not None])
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-3)


def test_shift_and_scale_of_a_groups_rewards_leave_its_advantages():
    rewards = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    for other in (rewards + 7, 4 * rewards):
        torch.testing.assert_close(
            group_advantage(other, "group"), group_advantage(rewards, "group"), atol=2e-3, rtol=0
        )
    assert group_advantage(torch.full((1, 4), 2.0), "group").tolist() == [[0.0] * 4]


def test_a_map_of_ones_with_a_samples_ratio_is_no_map_bit_for_bit():
    here, credit = run_context(), torch.tensor([0.7, -1.3])
    plain, mapped = Term(credit), Term(credit, map=torch.ones(2, FRAMES, 4, 4))
    found = [gradient(here, batch(here, (term,))) for term in (plain, mapped)]
    assert torch.equal(*found)
    move(here)
    values = [[out.loss for out in losses(here, batch(here, (term,), update=1), clip=1e-4)] for term in (plain, mapped)]
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))


def test_a_position_outside_the_map_pulls_on_nothing():
    """The gradient with respect to the prediction is 0 where M is; per position and per sample it is the same at
    theta_old up to the number of channels, by which the sum exceeds the mean.
    """
    old, _ = flat_step(RENOISE)
    x = torch.randn(1, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    at = torch.full((1, 2), 700.0).double()
    drawn = sample_noise(tuple(x.shape[1:]), [3], "z")
    old = transition(RENOISE, x, torch.zeros_like(x), at, at - 200, drawn)
    places, pulls = torch.zeros(1, 2, 2, 2), {}
    places[0, 0, 0, 0] = 8.0  # mean 1
    for ratio in ("sample", "position"):
        v = torch.zeros_like(x).requires_grad_()
        log_rho = reduced(log_ratio(old.replay(v), old, guard=False), places, ratio)
        advantage = torch.ones(1) if ratio == "sample" else places
        clipped_loss(advantage, log_rho, None).mean().backward()
        pulls[ratio] = v.grad
        assert v.grad[0, 0, :, 0, 0].abs().min() > 0
        assert v.grad.abs().sum() == pytest.approx(v.grad[0, 0, :, 0, 0].abs().sum().item())
    torch.testing.assert_close(pulls["position"], 2 * pulls["sample"])


def test_ratios_per_position_clip_each_on_its_own():
    here = run_context()
    move(here, 0.05)
    mapped = (Term(torch.tensor([1.0, -1.0]), map=torch.ones(2, FRAMES, 4, 4)),)
    [narrow, wide] = [losses(here, batch(here, mapped, 1), ratio="position", clip=c)[0].metrics for c in (1e-3, 0.9)]
    assert 0 < narrow["clipped"] < 1
    assert wide["clipped"] == 0
    assert narrow["log_ratio"] > losses(here, batch(here, mapped, 1), clip=1e-3)[0].metrics["log_ratio"]


def test_a_penalty_is_the_divergence_from_the_reference():
    here = run_context()
    move(here)
    sample = batch(here, update=1)
    plain, held = (losses(here, sample, kl_weight=weight, clip=0.5) for weight in (0.0, 10.0))
    for a, b in zip(plain, held, strict=True):
        assert b.metrics["kl"] == pytest.approx(b.metrics["kl_old"], rel=1e-4)  # here the reference is the old policy
        assert (b.loss - a.loss).item() == pytest.approx(10.0 * b.metrics["kl"] / 3, rel=1e-3)
        assert "kl" not in a.metrics


def test_a_replayed_old_policy_gives_the_stored_ones_ratios():
    here = run_context()
    move(here)
    stored, replayed = (losses(here, batch(here, update=1), old=old, clip=0.5) for old in ("stored", "replayed"))
    for a, b in zip(stored, replayed, strict=True):
        assert a.metrics["log_ratio"] > 1e-5
        assert b.metrics["log_ratio"] == pytest.approx(a.metrics["log_ratio"], rel=1e-2)


def test_a_stored_old_policy_costs_one_forward_a_step(monkeypatch):
    here, calls = run_context(), []
    sample, forward = batch(here, update=1), CausalWan.forward
    monkeypatch.setattr(CausalWan, "forward", lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))
    assert (len(losses(here, sample)), len(calls)) == (3, 3)
    calls.clear()
    assert (len(losses(here, sample, old="replayed", kl_weight=1.0)), len(calls)) == (3, 9)


def test_memory_of_a_trained_step_does_not_grow_with_the_steps():
    peaks = []
    for steps in (4, 8):
        here, meter = run_context(steps=steps), SavedTensors()
        outs = Objective(Config(), here).loss("student", batch(here))
        for _ in range(steps - 1):
            with meter.counting(here.roles.modules["student"].parameters()):
                out = next(outs)
            out.loss.backward()
            del out
        peaks.append(meter.peak)
    assert peaks[0] == peaks[1] > 0


# --- checks at run time


def test_a_first_update_whose_ratios_are_not_one_is_refused():
    here = run_context()
    move(here)
    with pytest.raises(RunError, match=r"grpo: ratio: \|log rho\| is .* in an epoch's first update"):
        losses(here, batch(here))
    assert losses(here, batch(here, update=1))  # later ones have moved


def test_the_clip_range_is_calibrated_from_the_second_update_and_kept():
    here = run_context()
    objective = Objective(Config(clip_quantile=0.9, clip_epoch=1), here)
    for out in objective.loss("student", batch(here)):
        assert out.metrics["clipped"] == 0
    move(here)
    list(objective.loss("student", batch(here, update=1)))
    assert objective.after_step(0)["ratio/clip"] == 0.0  # Adam's first steps are too long to go by
    move(here)
    seen = [out.metrics for out in objective.loss("student", batch(here, update=1))]
    largest = [max(-math.log(step["ratio_min"]), math.log(step["ratio_max"])) for step in seen]
    metrics = objective.after_step(1)
    assert metrics["ratio/first_error"] < 1e-5
    assert metrics["ratio/clip"] == pytest.approx(sum(largest) / 3, rel=1e-3)  # the 90 % quantile of two is the larger
    again = Objective(Config(clip_quantile=0.9), here)
    again.load_state(objective.state())
    assert again.clip == objective.clip
    assert Objective(Config(clip=0.1), here).state() == {}
    for name, value in lora.adapter_state(here.roles.modules["student"], "old").items():
        assert torch.equal(value, lora.adapter_state(here.roles.modules["student"], "default")[name])


def test_a_step_that_clips_nearly_all_is_warned_of():
    here = run_context()
    objective = Objective(Config(clip=1e-7), here)
    move(here)
    list(objective.loss("student", batch(here, update=1)))
    objective.after_step(0)
    assert objective.warning.startswith("100% of the ratios were clipped")
    objective.after_step(1)
    assert objective.warning == ""


@pytest.mark.parametrize(("name", "sets", "says"), [
    ("grpo_shapes", ["sampler={steps=12, shift=4.0, kind='ode'}"], "sampler.kind: found 'ode' without noise"),
    ("grpo_shapes", ["sampler.noise=0.0"], "sampler.kind: found 'dance' without noise"),
    ("grpo_shapes", ["sampler.steps=1"], "sampler.steps: found 1 step, expected 2 or more"),
    ("grpo_shapes", ["stages.grpo.experience.updates=1"], "stages.grpo.objective.clip: found 'calibrated'"),
    ("grpo_shapes", ["stages.grpo.objective.clip=1.5"], "stages.grpo.objective.clip: found 1.5"),
    ("grpo_shapes", ["stages.grpo.objective.weights='tempflow'"], "objective.weights: found 'tempflow'"),
    ("grpo_streaming_shapes", ["stages.grpo.objective.weights='guard'"], "objective.weights: found 'guard'"),
    ("grpo_shapes", ["stages.grpo.objective.ratio='position'"], "advantage.kind: found 'group', which gives"),
    ("grpo_shapes", ["stages.grpo.experience.group=1"], "stages.grpo.experience.group: found 1"),
    ("grpo_shapes", ["stages.grpo.experience.clip=3"], "stages.grpo.experience.clip: found 3, expected 0"),
    ("grpo_shapes", ["stages.grpo.experience.sde_window=1", "stages.grpo.experience.sde_range=[11, 12]"],
     "stages.grpo.experience.sde_range: found [11, 12], it holds only the last step"),
    ("grpo_shapes", ["stages.grpo.experience.sde_window=12"],
     "stages.grpo.experience.sde_window: found 12, expected at most 11"),
    ("grpo_shapes", ["stages.grpo.experience.sde_window=2", "stages.grpo.experience.sde_range=[5, 40]"],
     "stages.grpo.experience.sde_range: found [5, 40], expected [first, stop) within the 12 steps"),
    ("grpo_shapes", ["stages.grpo.experience.sde_range=[0, 4]"], "stages.grpo.experience.sde_range: found a range"),
    ("grpo_shapes", ["stages.grpo.data.captions=0"], "stages.grpo.data.captions: found 0"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused(name, sets, says):
    with pytest.raises(RecipeError) as error:
        load_recipe(name, sets)
    assert says in f"{error.value.key}: {error.value.what}"

"""The transition function against hand-worked scalars, the papers' own forms of each kernel, and its limits."""

from __future__ import annotations

import math

import pytest
import torch

from astro_cli.core.flow import add_noise, sigma_of, warp_timesteps, x0_from_velocity
from astro_cli.sampling.kernel import ODE, RENOISE, Kernel
from astro_cli.sampling.sampler import few_step_grid, final, transitions
from astro_cli.sampling.transition import moments, transition

DANCE, FLOW, CPS = Kernel("dance", 0.3), Kernel("flow", 0.7), Kernel("cps", 0.8)
SHAPE = (2, 3, 4, 5, 6)


def scalar(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1, 1), value, dtype=torch.float64)


def at(sigma: float, like: torch.Tensor) -> torch.Tensor:
    return torch.full(like.shape[:2], 1000.0 * sigma, dtype=torch.float64)


def normal(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(
    ("kernel", "mean", "std", "log_prob"),
    [
        # x0 = .8 + .7 * .5 = 1.15, e = .8 - .3 * .5 = .65, ds = -.2; x' = .6: log p = -z^2 / 2 - log std - .9189385, z
        # = (.6 - mean) / std
        (DANCE, 0.8916429, 0.1341641, -1.272901),  # .9 - .09 * .65 / .7 * .1; .3 sqrt .2; z = -2.173778
        (FLOW, 0.7938333, 0.4781910, -0.263347),  # g = .7 sqrt(.7 / .3) = 1.0692677; z = -.405347
        (CPS, 0.6754305, 0.4755283, -0.188190),  # std = .5 sin(.4 pi); .575 + sqrt(.25 - std^2) * .65; z = -.158625
        (RENOISE, 0.575, 0.5, -0.227041),  # .5 * 1.15; z = .05
        (Kernel("cps", 1.0), 0.575, 0.5, -0.227041),
    ],
)
def test_golden_scalars(kernel, mean, std, log_prob):
    x, v = scalar(0.8), scalar(-0.5)
    step = transition(kernel, x, v, at(0.7, x), at(0.5, x), x_next=scalar(0.6))
    assert step.mean.item() == pytest.approx(mean, abs=1e-7)
    assert step.std_BF.item() == pytest.approx(std, abs=1e-7)
    assert step.log_prob().item() == pytest.approx(log_prob, abs=2e-6)


def test_the_papers_own_forms():
    """DanceGRPO writes the score as -(x - (1 - s) x0) / s^2; Flow-GRPO expands everything in x and v."""
    x, v, s, after = normal(1, torch.float64), normal(2, torch.float64), 0.7, 0.5
    ds, x0 = after - s, x - s * v
    dance = x + ds * v - 0.5 * 0.3**2 * (-(x - (1 - s) * x0) / s**2) * ds
    g2 = 0.7**2 * s / (1 - s)
    flow = x * (1 + g2 / (2 * s) * ds) + v * (1 + g2 * (1 - s) / (2 * s)) * ds
    for kernel, expected in ((DANCE, dance), (FLOW, flow)):
        assert torch.allclose(transition(kernel, x, v, at(s, x), at(after, x)).mean, expected, atol=1e-12)


def test_log_prob_is_the_density_averaged_over_a_frame():
    x, v, noise = normal(1), normal(2), normal(3)
    step = transition(CPS, x, v, at(0.7, x), at(0.5, x), noise)
    density = torch.distributions.Normal(step.mean, step.std_BF[..., None, None, None].float()).log_prob(step.x_next)
    assert torch.allclose(step.log_density(), density, atol=1e-5)
    assert torch.allclose(step.log_prob(), density.flatten(2).mean(2), atol=1e-6)
    # z is the noise drawn: -mean z^2 / 2 - log(.5 sin(.4 pi)) - .9189385
    expected = -noise.pow(2).mean((2, 3, 4)) / 2 - math.log(0.5 * math.sin(0.4 * math.pi)) - 0.9189385
    assert torch.allclose(step.log_prob(), expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [DANCE, FLOW, CPS, RENOISE])
def test_a_step_and_its_replay_agree_to_the_bit(kernel):
    x, v, noise = normal(1), normal(2), normal(3)
    step = transition(kernel, x, v, at(0.7, x), at(0.5, x), noise)
    assert torch.equal(step.replay(v).log_prob(), step.log_prob())
    assert not torch.allclose(step.replay(v + 0.1).log_prob(), step.log_prob(), atol=1e-4)


def few_step(predict, x: torch.Tensor, steps: torch.Tensor, renoise, exit_step: int) -> torch.Tensor:
    """Self-Forcing's Algorithm 1 as it is written: x0, then noise of the next level."""
    for index in range(exit_step + 1):
        timestep = steps[index].expand(x.shape[:2])
        x0 = x0_from_velocity(x, predict(x, timestep), sigma_of(timestep))
        x = x0 if index == exit_step else add_noise(x0, renoise(index), sigma_of(steps[index + 1].expand(x.shape[:2])))
    return x


@pytest.mark.parametrize("exit_step", [0, 1, 2, 3])
def test_renoise_is_the_few_step_sampler_to_the_bit(exit_step):
    steps = warp_timesteps((1000, 750, 500, 250), 5.0)

    def predict(x: torch.Tensor, timestep: torch.Tensor, last: bool = False) -> torch.Tensor:
        return torch.sin(3 * x) + timestep[..., None, None, None].float() / 1000

    plain = few_step(predict, normal(1), steps, lambda index: normal(9 + index), exit_step)
    ours = final(transitions(predict, normal(1), few_step_grid(steps, exit_step), lambda index: normal(9 + index)))
    assert torch.equal(ours, plain)
    as_cps = final(
        transitions(
            predict, normal(1), few_step_grid(steps, exit_step), lambda index: normal(9 + index), Kernel("cps", 1.0)
        )
    )
    assert torch.equal(as_cps, plain)


def test_cps_keeps_the_total_noise():
    """x = (1 - s) x0 + s e: what is kept of e, and what is drawn, have second moment s'^2.

    With x0 = 0 the mean is what is kept.
    """
    e = normal(4, torch.float64)
    mean, std_BF = moments(CPS, 0.7 * e, e, sigma_of(at(0.7, e)), sigma_of(at(0.5, e)))  # v = e - x0 = e
    assert torch.allclose((mean / e).pow(2) + std_BF[..., None, None, None] ** 2, torch.full_like(e, 0.25), atol=1e-12)


@pytest.mark.parametrize("kernel", [Kernel("dance", 0.0), Kernel("flow", 0.0), Kernel("cps", 0.0), ODE])
def test_without_noise_every_kernel_is_the_ode(kernel):
    x, v = normal(1), normal(2)
    step = transition(kernel, x, v, at(0.7, x), at(0.5, x))
    assert torch.allclose(step.x_next, x + (0.5 - 0.7) * v, atol=1e-6)
    assert not step.std_BF.any()
    assert not kernel.random


def test_a_little_noise_is_nearly_the_ode():
    x, v = normal(1), normal(2)
    apart = [
        (transition(Kernel("dance", eta), x, v, at(0.7, x), at(0.5, x), normal(3)).x_next - (x - 0.2 * v)).abs().max()
        for eta in (1e-2, 1e-3)
    ]
    assert apart[1] < apart[0] / 9  # the drift is of second order, the noise of first


@pytest.mark.parametrize("kernel", [DANCE, FLOW, CPS, RENOISE, ODE])
def test_the_last_step_gives_x0_and_has_no_density(kernel):
    x, v = normal(1), normal(2)
    step = transition(kernel, x, v, at(0.6, x), at(0.0, x))
    assert torch.allclose(step.x_next, x0_from_velocity(x, v, sigma_of(at(0.6, x))), atol=1e-6)
    assert not step.std_BF.any()


def test_flow_at_its_pole():
    # s = 1, s' = .9375: g = .7 sqrt(1 / (1 - .9375)) = 2.8, std = 2.8 sqrt(.0625) = .7
    x, v = normal(1), normal(2)
    step = transition(FLOW, x, v, at(1.0, x), at(0.9375, x), normal(3))
    assert torch.allclose(step.std_BF, torch.full_like(step.std_BF, 0.7))
    assert step.x_next.isfinite().all()


def test_steps_of_their_own_for_every_frame():
    """A replay may hold other steps in other frames, as training picks them."""
    x, v, noise = normal(1), normal(2), normal(3)
    times, after = (
        torch.tensor([[900.0, 700.0, 700.0]] * 2).double(),
        torch.tensor([[700.0, 500.0, 500.0]] * 2).double(),
    )
    for kernel in (DANCE, FLOW, CPS, RENOISE):
        mixed = transition(kernel, x, v, times, after, noise)
        for frame in range(3):
            alone = transition(
                kernel,
                x[:, frame : frame + 1],
                v[:, frame : frame + 1],
                times[:, frame : frame + 1],
                after[:, frame : frame + 1],
                noise[:, frame : frame + 1],
            )
            assert torch.equal(mixed.x_next[:, frame : frame + 1], alone.x_next)

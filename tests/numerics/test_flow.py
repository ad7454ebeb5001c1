"""Conversions of the rectified flow and the shifted schedule, by hand."""

import torch

from astro_cli.core.flow import (
    add_noise,
    guide,
    shift_sigma,
    velocity_target,
    warp_timesteps,
    x0_from_velocity,
)
from astro_cli.sampling.ode import euler, sigma_grid
from astro_cli.sampling.sampler import few_step_grid, final, transitions


def scalar(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1, 1), value)


def test_warped_steps_by_hand():
    # shift 5: u = .75 -> 5 * .75 / (1 + 4 * .75) = 3.75 / 4 = .9375; u = .5 -> 2.5 / 3; u = .25 -> 1.25 / 2
    expected = torch.tensor([1000, 937.5, 2500 / 3, 625], dtype=torch.float64)
    assert torch.allclose(warp_timesteps((1000, 750, 500, 250), 5.0), expected)


def test_conversions_by_hand():
    # x0 = 2, eps = -1, sigma = .25: x_t = .75 * 2 + .25 * -1 = 1.25; v = -1 - 2 = -3; x0 = 1.25 + .25 * 3 = 2
    sigma = torch.tensor([[0.25]])
    x_t = add_noise(scalar(2.0), scalar(-1.0), sigma)
    assert x_t.item() == 1.25
    v = velocity_target(scalar(2.0), scalar(-1.0))
    assert v.item() == -3.0
    assert x0_from_velocity(x_t, v, sigma).item() == 2.0


def test_guidance_scale_one_is_conditional_and_released_three_is_four():
    c, u = scalar(2.0), scalar(1.0)
    assert guide(c, u, 1.0).item() == 2.0
    assert guide(c, u, 4.0).item() == (c + 3 * (c - u)).item() == 5.0


def test_sigma_grid_ends_and_is_monotone():
    grid = sigma_grid(10, 4.0)
    assert grid[0] == 1
    assert grid[-1] == 0
    assert bool((grid[1:] < grid[:-1]).all())
    assert torch.isclose(shift_sigma(torch.tensor(0.5), 1.0), torch.tensor(0.5))


def test_euler_is_exact_for_a_straight_path():
    # v = eps - x0 is constant along the path, so any number of Euler steps from eps ends at x0
    x0, eps = scalar(2.0).double(), scalar(-1.0).double()
    end, kept = euler(lambda x, t: eps - x0, eps, sigma_grid(7, 4.0), keep=(0, 3))
    assert torch.allclose(end, x0)
    assert len(kept) == 2
    assert torch.equal(kept[0], eps)


def test_few_step_sampler_replays_by_hand_and_exits_early():
    # A model that always predicts x0 = 3: v = (x - 3) / sigma. Whatever the re-noising, the result is 3; two calls when
    # exiting at step 1.
    calls = []

    def predict(x: torch.Tensor, timestep: torch.Tensor, last: bool) -> torch.Tensor:
        calls.append((float(timestep[0, 0]), last))
        return (x - 3.0) / (timestep / 1000)[..., None, None, None].to(x.dtype)

    steps = warp_timesteps((1000, 750, 500, 250), 5.0)
    out = final(transitions(predict, scalar(0.7), few_step_grid(steps, 1), lambda index: scalar(float(index))))
    assert abs(out.item() - 3.0) < 1e-6
    assert calls == [(1000.0, False), (937.5, True)]

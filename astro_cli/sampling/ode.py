"""Multi-step sampling of a bidirectional network by Euler or an SDE kernel, with classifier-free guidance.

    x_{s'} = x_s + (sigma' - sigma) v(x_s, s)

Source: Wan 2.1 (arXiv 2503.20314). **Deviations**: Euler instead of UniPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from astro_cli.core.flow import guide, shift_sigma, sigma_of, timestep_of
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.sampling.kernel import ODE, Kernel
from astro_cli.sampling.sampler import transitions
from astro_cli.sampling.transition import Transition

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def sigma_grid(steps: int, shift: float) -> torch.Tensor:
    """(steps + 1,) shifted noise levels from 1 to 0, float64."""
    return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift)


def grid_through(steps: torch.Tensor, total: int, shift: float) -> tuple[torch.Tensor, tuple[int, ...]]:
    """A grid of about `total` intervals that holds every student step exactly, and the steps' indices in it."""
    grid = torch.unique(torch.cat((sigma_grid(total, shift), sigma_of(steps)))).flip(0)
    near = torch.cat((torch.tensor([True]), (grid[:-1] - grid[1:]) > 1e-9))
    grid = grid[near]
    return grid, tuple(int((grid - sigma).abs().argmin()) for sigma in sigma_of(steps))


def euler(
    velocity: Velocity, x: torch.Tensor, sigmas: torch.Tensor, keep: tuple[int, ...] = ()
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Integrate from sigmas[0] to sigmas[-1] = 0.

    Args:
        velocity: (x, timestep (B, F)) -> v.
        keep: indices of `sigmas` whose states are returned as well.

    Returns:
        (final state, kept states).
    """
    kept = []
    for index, step in enumerate(multi_step(velocity, x, sigmas)):
        if index in keep:
            kept.append(step.x)
        x = step.x_next
    return x, kept


def multi_step(
    velocity: Velocity,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    kernel: Kernel = ODE,
    noise: Callable[[int], torch.Tensor] | None = None,
) -> Iterator[Transition]:
    """Steps from sigmas[0] to sigmas[-1] = 0: Euler's, or those of a kernel that draws `noise(i)` in step i."""
    return transitions(lambda x_t, timestep, _: velocity(x_t, timestep), x, timestep_of(sigmas), noise, kernel)


def guided(network: CausalWan, text_BMD: torch.Tensor, scale: float, empty_BMD: torch.Tensor, **attention) -> Velocity:
    """Velocity with classifier-free guidance against the empty prompt; both branches run as one batch.

    Args:
        empty_BMD: text states of the empty prompt, one row per sample.
    """
    if scale == 1.0:
        plain = network.encode_text(text_BMD)
        return lambda x, t: network(x, t, plain, **attention)
    text = network.encode_text(torch.cat((text_BMD, empty_BMD)))

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        conditional, unconditional = network(torch.cat((x, x)), torch.cat((t, t)), text, **attention).chunk(2)
        return guide(conditional, unconditional, scale)

    return velocity

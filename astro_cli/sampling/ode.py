"""Multi-step Euler sampling of the probability-flow ODE, with classifier-free guidance. Knows no cache and no text.

    x_{s'} = x_s + (sigma' - sigma) v(x_s, s)

Source: Wan 2.1; reference, section 2. **Deviations**: Euler instead of UniPC.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from astro_cli.core.flow import guide, shift_sigma, timestep_of
from astro_cli.models.wan.transformer import CausalWan

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def sigma_grid(steps: int, shift: float) -> torch.Tensor:
    """(steps + 1,) shifted noise levels from 1 to 0, float64."""
    return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift)


def euler(velocity: Velocity, x: torch.Tensor, sigmas: torch.Tensor, keep: tuple[int, ...] = ()) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Integrate from sigmas[0] to sigmas[-1].

    Args:
        velocity: (x, timestep (B, F)) -> v.
        keep: indices of `sigmas` whose states are returned as well.

    Returns:
        (final state, kept states).
    """
    kept = []
    for index in range(len(sigmas) - 1):
        if index in keep:
            kept.append(x)
        timestep = timestep_of(sigmas[index]).to(x.device).expand(x.shape[:2])
        x = x + velocity(x, timestep) * float(sigmas[index + 1] - sigmas[index])
    return x, kept


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

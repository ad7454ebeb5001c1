"""Few-step sampling of a distilled student: predict x0, re-noise to the next step, repeat. Knows no cache and no text.

    x0 = x_t - sigma v(x_t, t);   x_t' = (1 - sigma') x0 + sigma' eps',  eps' fresh

Source: Self-Forcing (arXiv 2506.08009), Algorithm 1; reference, section 1.6. **Deviations**: none.
Dimensions: B sample, F frame of the block, S step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from astro_cli.core.flow import add_noise, sigma_of, x0_from_velocity

Predict = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]


def few_step(
    predict: Predict, x_BFCHW: torch.Tensor, steps: torch.Tensor, renoise: Callable[[int], torch.Tensor], exit_step: int | None = None
) -> torch.Tensor:
    """Denoise a block.

    Args:
        predict: (x_t, timestep (B, F), is the last call) -> velocity.
        x_BFCHW: Gaussian noise.
        steps: (S,) warped timesteps, descending.
        renoise: noise that takes x0 of step i to step i + 1.
        exit_step: stop after this step (Self-Forcing's training); default the last.

    Returns:
        x0 of the last step made.
    """
    last = len(steps) - 1 if exit_step is None else exit_step
    x = x_BFCHW
    x0 = x
    for index in range(last + 1):
        timestep = steps[index].to(x.device).expand(x.shape[:2])
        x0 = x0_from_velocity(x, predict(x, timestep, index == last), sigma_of(timestep))
        if index < last:
            x = add_noise(x0, renoise(index), sigma_of(steps[index + 1].to(x.device).expand(x.shape[:2])))
    return x0

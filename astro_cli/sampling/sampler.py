"""The sampling loop, one for all kernels: predict a velocity, take a step, until the sample is clean.

The steps come out one by one: `final` wants only where they lead, a `trajectory.Recorder` keeps them.
Source: Self-Forcing (arXiv 2506.08009), Algorithm 1, for few-step students; the kernels' are in `transition`.
Dimensions: B sample, F frame of the block, S step.

**Deviations**: none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch

from astro_cli.sampling.kernel import RENOISE, Kernel
from astro_cli.sampling.transition import Transition, transition

Predict = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]


def few_step_grid(steps: torch.Tensor, exit_step: int | None = None) -> torch.Tensor:
    """Timesteps that a few-step student goes through: the steps up to `exit_step` (default the last), then 0."""
    kept = steps if exit_step is None else steps[: exit_step + 1]
    return torch.cat((kept, kept.new_zeros(1)))


def transitions(
    predict: Predict,
    x_BFCHW: torch.Tensor,
    timesteps: torch.Tensor,
    noise: Callable[[int], torch.Tensor] | None = None,
    kernel: Kernel = RENOISE,
) -> Iterator[Transition]:
    """Denoise step by step.

    Args:
        predict: (x_t, timestep (B, F), is the last call) -> velocity.
        x_BFCHW: Gaussian noise.
        timesteps: (S + 1,), falling to 0.
        noise: what step i draws; never called for the last step. An ODE needs none.
        kernel: of the steps in its window; the others are the ODE's.

    Yields:
        each step; the last one's `x_next` is clean.
    """
    assert noise is not None or not kernel.random, f"{kernel.kind} draws noise"
    x, last = x_BFCHW, len(timesteps) - 2
    times = [timestep.to(x.device).expand(x.shape[:2]) for timestep in timesteps]
    for index in range(last + 1):
        v = predict(x, times[index], index == last)
        here = kernel.at(index)
        drawn = noise(index) if noise is not None and here.random and index < last else None
        step = transition(here, x, v, times[index], times[index + 1], drawn)
        yield step
        x = step.x_next


def final(steps: Iterator[Transition]) -> torch.Tensor:
    """Run a sampler to its end; the clean (B, F, C, H, W)."""
    return deque(steps, maxlen=1).pop().x_next

"""Whole clips at once from a bidirectional network, by an ODE or an SDE: the multi-step engine.

Noise belongs to (sample, step). Dimensions: F latent frame, C channel, H, W latent rows and columns; S step.
"""

from __future__ import annotations

import torch

from astro_cli.core.rng import sample_noise
from astro_cli.sampling.kernel import ODE, Kernel
from astro_cli.sampling.ode import Velocity, multi_step
from astro_cli.sampling.sampler import final
from astro_cli.sampling.trajectory import Recorder


@torch.no_grad()
def sample_clips(
    velocity: Velocity,
    seeds: list[int],
    shape: tuple[int, ...],
    sigmas: torch.Tensor,
    device: torch.device,
    kernel: Kernel = ODE,
    recorder: Recorder | None = None,
    starts: list[int] | None = None,
) -> torch.Tensor:
    """Clips (B, F, C, H, W), without gradients.

    Args:
        velocity: guided or plain, of the B clips.
        shape: (F, C, H, W) of one clip.
        sigmas: (S + 1,) noise levels from 1 to 0.
        recorder: keeps the trajectory.
        starts: seeds of the clips' x_T; default their own, of which the other draws are.
    """
    x_T = sample_noise(shape, starts or seeds, "x_T", device=device)

    def noise(step: int) -> torch.Tensor:
        return sample_noise(shape, seeds, f"renoise-{step}", device=device)

    steps = multi_step(velocity, x_T, sigmas, kernel, noise)
    return final(steps if recorder is None else recorder.listen(steps))

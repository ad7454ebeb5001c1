"""One step of a sampler, drawn or replayed: the Gaussian that leads from x at sigma to x' at sigma', and its density.

    e = x + (1 - s) v,   x0 = x - s v,   ds = s' - s < 0
    dance, flow     mean = x + ds v + g^2 ds / (2 s) e,   std = g sqrt|ds|;   g = eta, or g = a sqrt(s / (1 - s))
    cps, renoise    mean = (1 - s') x0 + sqrt(s'^2 - std^2) e,   std = s' sin(nu pi / 2);   renoise: nu = 1, std = s'
    ode             mean = x + ds v,   std = 0

A step to s' = 0 is always the ODE's, whose mean is x0: it draws no noise and has no density.
Source: DanceGRPO (arXiv 2505.07818) for `dance`; Flow-GRPO (arXiv 2505.05470) for `flow`, whose published form is the
same expanded in x and v; Flow-CPS (arXiv 2509.05952) for `cps`; Self-Forcing (arXiv 2506.08009), Algorithm 1, for
`renoise`. Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

**Deviations**: the last step of `dance` and `flow` is deterministic. `flow` at s = 1, its pole, divides by 1 - s' (the
released code: by 1 - the first level below 1, the same on its grids). The log-density of `cps` is the Gaussian's, where
its released code drops the constants and the factor 1 / (2 std^2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from astro_cli.core.flow import noise_from_velocity, per_frame, sigma_of, x0_from_velocity
from astro_cli.core.logprob import gaussian_log_density
from astro_cli.sampling.kernel import Kernel


@dataclass(frozen=True)
class Transition:
    """A step from `x` to `x_next` and the Gaussian it has under some policy.

    Attributes:
        x, x_next, mean: (B, F, C, H, W).
        std_BF: (B, F) float64; 0 where the step is deterministic.
        timestep_BF, next_BF: (B, F), of `x` and `x_next`.
    """

    kernel: Kernel
    x: torch.Tensor
    x_next: torch.Tensor
    mean: torch.Tensor
    std_BF: torch.Tensor
    timestep_BF: torch.Tensor
    next_BF: torch.Tensor

    def log_density(self) -> torch.Tensor:
        """(B, F, C, H, W) log-density of every entry; only of steps that draw noise."""
        return gaussian_log_density(self.x_next, self.mean, per_frame(self.std_BF).to(self.x.dtype))

    def log_prob(self) -> torch.Tensor:
        """(B, F) log-density, averaged over a frame's entries; its mean over frames is a sample's log-prob in GRPO."""
        return self.log_density().mean((2, 3, 4))

    def replay(self, v: torch.Tensor) -> Transition:
        """The same step under a policy that predicts `v` at `x`."""
        return transition(self.kernel, self.x, v, self.timestep_BF, self.next_BF, x_next=self.x_next)


def transition(
    kernel: Kernel,
    x: torch.Tensor,
    v: torch.Tensor,
    timestep_BF: torch.Tensor,
    next_BF: torch.Tensor,
    noise: torch.Tensor | None = None,
    x_next: torch.Tensor | None = None,
) -> Transition:
    """Take a step, or replay one.

    Args:
        x, v: the state and the velocity predicted there.
        timestep_BF, next_BF: of this state and the next, in [0, 1000], falling.
        noise: what the step draws; None takes the mean.
        x_next: the step to replay, instead of a new one.
    """
    mean, std_BF = moments(kernel, x, v, sigma_of(timestep_BF), sigma_of(next_BF))
    if x_next is None:
        x_next = mean if noise is None else mean + per_frame(std_BF).to(x.dtype) * noise
    return Transition(kernel, x, x_next, mean, std_BF, timestep_BF, next_BF)


def moments(
    kernel: Kernel, x: torch.Tensor, v: torch.Tensor, sigma_BF: torch.Tensor, after_BF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (B, F, C, H, W) and standard deviation (B, F) of the step from `sigma` to `after`."""
    if kernel.kind in ("renoise", "cps"):
        return _interpolated(kernel, x, v, sigma_BF, after_BF)
    return _diffused(kernel, x, v, sigma_BF, after_BF)


def _interpolated(
    kernel: Kernel, x: torch.Tensor, v: torch.Tensor, sigma_BF: torch.Tensor, after_BF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of level s' around (1 - s') x0, part of it the noise that is in x."""
    mean = (1.0 - per_frame(after_BF).to(x.dtype)) * x0_from_velocity(x, v, sigma_BF)
    if kernel.kind == "renoise":
        return mean, after_BF
    std_BF = after_BF * math.sin(kernel.level * math.pi / 2)
    kept_BF = (after_BF.pow(2) - std_BF.pow(2)).clamp_min(0.0).sqrt()
    return mean + per_frame(kept_BF).to(x.dtype) * noise_from_velocity(x, v, sigma_BF), std_BF


def _diffused(
    kernel: Kernel, x: torch.Tensor, v: torch.Tensor, sigma_BF: torch.Tensor, after_BF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """An Euler step, with diffusion g and the score's correction for it."""
    ds_BF = after_BF - sigma_BF
    mean = x + v * per_frame(ds_BF).to(x.dtype)
    if not kernel.random:
        return mean, torch.zeros_like(ds_BF)
    g_BF = torch.full_like(sigma_BF, kernel.level)
    if kernel.kind == "flow":
        g_BF = g_BF * (sigma_BF / (1.0 - torch.where(sigma_BF == 1.0, after_BF, sigma_BF))).sqrt()
    g_BF = torch.where(after_BF == 0.0, 0.0, g_BF)
    drift_BF = 0.5 * g_BF.pow(2) * ds_BF / sigma_BF
    return mean + per_frame(drift_BF).to(x.dtype) * noise_from_velocity(x, v, sigma_BF), g_BF * (-ds_BF).sqrt()

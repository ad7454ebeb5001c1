"""Rectified-flow conversions and the shifted noise schedule, as functions of tensors.

Convention (Wan 2.1, Self-Forcing): x_t = (1 - sigma) x0 + sigma eps; the model predicts the velocity v = eps - x0.
`sigma` lives in [0, 1], `timestep` = 1000 sigma in [0, 1000]; `sigma_of` and `timestep_of` are the one place that
converts.
Dimensions: B sample, F latent frame, C channel, H height, W width.

Deviations: sigma = timestep / 1000 exactly. Self-Forcing's released code looks sigma up in a 1000-entry grid (nearest
neighbour, error up to 5e-3 near 0) and mixes a shift-5 with a shift-8 grid for the critic.
"""

from __future__ import annotations

import torch

TIMESTEP_RANGE = 1000.0  # Wan's model input for sigma = 1


def sigma_of(timestep: torch.Tensor) -> torch.Tensor:
    return timestep / TIMESTEP_RANGE


def timestep_of(sigma: torch.Tensor) -> torch.Tensor:
    return sigma * TIMESTEP_RANGE


def shift_sigma(u: torch.Tensor, shift: float) -> torch.Tensor:
    """Flow shift: u in [0, 1] -> sigma = shift u / (1 + (shift - 1) u) (Wan 2.1, scheduler)."""
    return shift * u / (1.0 + (shift - 1.0) * u)


def unshift_sigma(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """The level before the flow shift, u = sigma / (shift - (shift - 1) sigma); inverse of `shift_sigma`."""
    return sigma / (shift - (shift - 1.0) * sigma)


def warp_timesteps(steps: tuple[float, ...], shift: float) -> torch.Tensor:
    """Distillation steps such as (1000, 750, 500, 250) warped by the flow shift: 1000, 937.5, 833.33, 625 for shift 5.

    Returns float64 (S,) timesteps in [0, 1000].
    """
    u = torch.tensor(steps, dtype=torch.float64) / TIMESTEP_RANGE
    return timestep_of(shift_sigma(u, shift))


def per_frame(value_BF: torch.Tensor) -> torch.Tensor:
    """(B, F) -> (B, F, 1, 1, 1), to scale a video tensor (B, F, C, H, W) per frame."""
    return value_BF[..., None, None, None]


def add_noise(x0: torch.Tensor, noise: torch.Tensor, sigma_BF: torch.Tensor) -> torch.Tensor:
    """x_t = (1 - sigma) x0 + sigma eps, per frame; (B, F, C, H, W) and sigma (B, F)."""
    sigma = per_frame(sigma_BF).to(x0.dtype)
    return (1.0 - sigma) * x0 + sigma * noise


def velocity_target(x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """v = eps - x0."""
    return noise - x0


def x0_from_velocity(x_t: torch.Tensor, v: torch.Tensor, sigma_BF: torch.Tensor) -> torch.Tensor:
    """x0 = x_t - sigma v, computed in float64 as the released samplers do, returned in x_t's dtype."""
    sigma = per_frame(sigma_BF).double()
    return (x_t.double() - sigma * v.double()).to(x_t.dtype)


def noise_from_velocity(x_t: torch.Tensor, v: torch.Tensor, sigma_BF: torch.Tensor) -> torch.Tensor:
    """eps = x_t + (1 - sigma) v, computed in float64 like x0, returned in x_t's dtype."""
    sigma = per_frame(sigma_BF).double()
    return (x_t.double() + (1.0 - sigma) * v.double()).to(x_t.dtype)


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance, u + scale (c - u); scale 1 is no guidance.

    Deviations: Self-Forcing's released DMD writes c + 3 (c - u), which is scale 4 here.
    """
    return unconditional + scale * (conditional - unconditional)

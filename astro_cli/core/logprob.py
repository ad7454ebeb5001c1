"""Log-density of a diagonal Gaussian, entry by entry."""

from __future__ import annotations

import math

import torch

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def gaussian_log_density(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """log N(x; mean, std^2) of every entry; `std` is positive and broadcasts.

    -(x - mean)^2 / (2 std^2) - log std - 1/2 log 2 pi
    """
    return -(x - mean).pow(2) / (2.0 * std.pow(2)) - std.log() - HALF_LOG_TWO_PI

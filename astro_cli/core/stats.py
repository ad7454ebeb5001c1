"""Small statistics on tensors that several layers share."""

from __future__ import annotations

import torch


def per_sample_mse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over every dimension but the first: (B, ...) -> (B,)."""
    return (a - b).float().pow(2).flatten(1).mean(1)

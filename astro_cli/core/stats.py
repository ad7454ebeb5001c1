"""Small statistics on tensors that several layers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def per_sample_mse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over every dimension but the first: (B, ...) -> (B,)."""
    return (a - b).float().pow(2).flatten(1).mean(1)


def concatenated(parts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Tensors of batches, (B, ...) by name, joined along B; the names are the first part's."""
    joined = {}
    for name in parts[0]:
        joined[name] = torch.cat([part[name] for part in parts])
    return joined

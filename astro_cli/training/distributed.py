"""Processes: which samples are ours, and one average of gradients per optimiser step. Everything multi-process goes
through accelerate here.

Gradients are averaged once per step in one flat buffer, not by wrapping networks: a loss may call a network many times
(a rollout), through several adapters, and not use every parameter, which a wrapper's hooks do not allow.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from astro_cli.training.sharded import is_divided


def own_rows(accelerator: Accelerator, size: int) -> slice:
    """Rows of a global batch this process computes; sizes are checked to divide."""
    share = size // accelerator.num_processes
    return slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)


def average_metrics(accelerator: Accelerator, metrics: dict[str, float]) -> dict[str, float]:
    """Mean over processes of metrics that every process has."""
    if accelerator.num_processes == 1:
        return metrics
    values = torch.tensor(list(metrics.values()), dtype=torch.float32, device=accelerator.device)
    mean = accelerator.reduce(values, reduction="mean")
    assert isinstance(mean, torch.Tensor)
    return dict(zip(metrics, mean.tolist(), strict=True))


def gather_rows(accelerator: Accelerator, value: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in their order, on the value's device."""
    gathered = accelerator.gather(value.to(accelerator.device))
    assert isinstance(gathered, torch.Tensor)
    return gathered.to(value.device)


def average_gradients(accelerator: Accelerator, parameters: list[nn.Parameter]) -> None:
    """Those of whole parameters; gradients of divided ones are averaged where they are divided."""
    parameters = [p for p in parameters if not is_divided(p)]
    if accelerator.num_processes == 1 or not parameters:
        return
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in grads])
    flat = accelerator.reduce(flat, reduction="mean")
    assert isinstance(flat, torch.Tensor)
    for p, part in zip(parameters, flat.split([g.numel() for g in grads]), strict=True):
        p.grad = part.view_as(p).clone()

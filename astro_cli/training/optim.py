"""Optimisers, learning-rate schedules and moving averages of weights, one per trained role. All functions of the step, so resume needs no replay."""

from __future__ import annotations

import math

import torch
from torch import nn

from astro_cli.recipe import EmaSpec, OptimSpec

FINAL_LR = 0.02  # share of the peak rate a cosine ends at


def learning_rate(spec: OptimSpec, step: int, steps: int) -> float:
    """Linear warm-up, then constant or a half cosine down to FINAL_LR of the peak."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    if spec.decay == "constant":
        return spec.lr
    done = (step - spec.warmup) / max(1, steps - spec.warmup)
    return spec.lr * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def make_optimizer(spec: OptimSpec, named: list[tuple[str, nn.Parameter]]) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases, tables) are not decayed."""
    matrices = [p for _, p in named if p.ndim >= 2]
    vectors = [p for _, p in named if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=spec.betas, eps=spec.eps, foreach=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Optimiser state as named tensors, "<parameter index>.<key>"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Ema:
    """Exponential moving average of a role's trained weights, float32."""

    def __init__(self, spec: EmaSpec, named: list[tuple[str, nn.Parameter]]) -> None:
        self.spec, self.named = spec, named
        self.shadow = {name: p.detach().float().clone() for name, p in named}

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = self.spec.decay if step >= self.spec.start else 0.0
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach().float() for _, p in self.named], 1.0 - keep)

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        for name, p in self.named:
            p.copy_(self.shadow[name])

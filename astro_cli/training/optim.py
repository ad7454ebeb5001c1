"""Optimisers, learning-rate schedules and moving averages of weights, one per trained role.

All functions of the step, so resume needs no replay.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from astro_cli.spec import EmaSpec, OptimSpec
from astro_cli.training.muon import Muon
from astro_cli.training.sharded import whole

FINAL_LR = 0.02  # share of the peak rate a cosine ends at


def learning_rate(spec: OptimSpec, step: int, steps: int) -> float:
    """Linear warm-up, then constant or a half cosine down to FINAL_LR of the peak."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    if spec.decay == "constant":
        return spec.lr
    done = (step - spec.warmup) / max(1, steps - spec.warmup)
    return spec.lr * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and kernels are; norms, biases and tables (of shift and scale, (1, 6, dim)) are not."""
    return parameter.ndim >= 2 and not name.endswith("table")


def _first_part(spec: OptimSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of everything that is not Muon's."""
    if spec.kind == "rmsprop":
        assert spec.alpha is not None, "checked with the recipe"
        return torch.optim.RMSprop(groups, lr=spec.lr, alpha=spec.alpha, eps=spec.eps, foreach=True)
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, foreach=True)


class RoleOptimizer:
    """The optimiser of one role: AdamW, Muon on the blocks' matrices and AdamW on the rest, or RMSProp.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix. Only the embedded world's teacher uses it
    (docs/log.md); nothing a paper reports is trained with it. RMSProp is AAPT's (arXiv 2506.09350); its weight decay is
    added to the gradient, as PyTorch's is.
    """

    def __init__(self, spec: OptimSpec, named: list[tuple[str, nn.Parameter]]) -> None:
        self.spec = spec
        self.parameters = [p for _, p in named]
        muon, decayed, free = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
        for name, p in named:
            group = muon if spec.kind == "muon" and _is_matrix(name, p) else decayed if _is_decayed(name, p) else free
            group.append(p)
        groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": free, "weight_decay": 0.0}]
        self.parts = [_first_part(spec, [g for g in groups if g["params"]])]
        if muon:
            kind = torch.optim.Muon if spec.matrix_dtype == "bfloat16" else Muon
            self.parts.append(kind(muon, lr=spec.matrix_lr or 0.0, weight_decay=spec.weight_decay))
        self.peaks = [spec.lr, spec.matrix_lr or 0.0]

    def step(self, rate: float) -> float:
        """Clip, update with the schedule's rate (a share of it for Muon), clear gradients; returns the gradient
        norm.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.clip)
        for part, peak in zip(self.parts, self.peaks, strict=False):
            for group in part.param_groups:
                group["lr"] = rate * peak / self.spec.lr
            part.step()
            part.zero_grad(set_to_none=True)
        return float(whole(norm))

    def tensors(self) -> dict[str, torch.Tensor]:
        """State as named tensors, "<part>.<parameter index>.<key>"."""
        return {
            f"{number}.{index}.{key}": value
            for number, part in enumerate(self.parts)
            for index, entry in part.state_dict()["state"].items()
            for key, value in entry.items()
        }

    def parameter_of(self, name: str) -> nn.Parameter | None:
        """The parameter that a tensor of the state belongs to, by the tensor's name; None for other names."""
        parts = name.split(".", 2)
        if len(parts) < 3 or not (parts[0].isdigit() and parts[1].isdigit()) or int(parts[0]) >= len(self.parts):
            return None
        parameters = [p for group in self.parts[int(parts[0])].param_groups for p in group["params"]]
        return parameters[int(parts[1])] if int(parts[1]) < len(parameters) else None

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up a saved state.

        Raises:
            ValueError: it is of other parameters, or of the same in another order.
        """
        for number, part in enumerate(self.parts):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in tensors.items():
                owner, index, key = name.split(".", 2)
                if int(owner) == number:
                    state.setdefault(int(index), {})[key] = value
            parameters = [p for group in part.param_groups for p in group["params"]]
            for number_in_part, entry in state.items():
                shapes = {value.shape for value in entry.values() if value.ndim}
                if number_in_part >= len(parameters) or shapes - {parameters[number_in_part].shape}:
                    raise ValueError(f"parameter {number_in_part} of optimiser {number} has another shape")
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon may train it: the matrices of a transformer's blocks, the filters of a codec (outputs by inputs,
    rows and columns).
    """
    return (parameter.ndim == 2 and name.startswith("blocks.")) or parameter.ndim == 4


class Ema:
    """Exponential moving average of a role's trained weights, float32."""

    def __init__(self, spec: EmaSpec, named: list[tuple[str, nn.Parameter]]) -> None:
        self.spec, self.named = spec, named
        self.shadow = {name: p.detach().float().clone() for name, p in named}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights after the role has been updated for the `updates + 1`-th time."""
        keep = self.spec.decay if updates >= self.spec.start else 0.0
        if self.spec.ramp:
            keep = min(keep, (2 + updates) / (11 + updates))  # (1 + n) / (10 + n) after update n = updates + 1
        for name, p in self.named:
            self.shadow[name].lerp_(p.float(), 1.0 - keep)

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        for name, p in self.named:
            p.copy_(self.shadow[name])

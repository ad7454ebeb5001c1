"""Optimisers, learning-rate schedules and moving averages of weights, one per trained role. All functions of the step, so resume needs no replay."""

from __future__ import annotations

import math

import torch
from torch import nn

from astro_cli.recipe import EmaSpec, OptimSpec
from astro_cli.training.muon import Muon

FINAL_LR = 0.02  # share of the peak rate a cosine ends at


def learning_rate(spec: OptimSpec, step: int, steps: int) -> float:
    """Linear warm-up, then constant or a half cosine down to FINAL_LR of the peak."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    if spec.decay == "constant":
        return spec.lr
    done = (step - spec.warmup) / max(1, steps - spec.warmup)
    return spec.lr * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class RoleOptimizer:
    """The optimiser of one role: AdamW, or with `matrix_lr` Muon on the blocks' matrices and AdamW on the rest.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix. Only the embedded world's teacher uses it (docs/log.md); nothing a paper
    reports is trained with it.
    """

    def __init__(self, spec: OptimSpec, named: list[tuple[str, nn.Parameter]]) -> None:
        self.spec = spec
        self.parameters = [p for _, p in named]
        muon = [p for name, p in named if spec.matrix_lr and _is_matrix(name, p)]
        rest = [p for p in self.parameters if not any(p is m for m in muon)]
        decayed, free = [p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]  # norms, biases and tables are not decayed
        groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": free, "weight_decay": 0.0}]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=spec.betas, eps=spec.eps, foreach=True)
        ]
        if muon:
            kind = torch.optim.Muon if spec.matrix_dtype == "bfloat16" else Muon
            self.parts.append(kind(muon, lr=spec.matrix_lr or 0.0, weight_decay=spec.weight_decay))
        self.peaks = [spec.lr, spec.matrix_lr or 0.0]

    def step(self, rate: float) -> float:
        """Clip, update with the schedule's rate (a share of it for Muon), clear gradients; returns the gradient norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.clip)
        for part, peak in zip(self.parts, self.peaks, strict=False):
            for group in part.param_groups:
                group["lr"] = rate * peak / self.spec.lr
            part.step()
            part.zero_grad(set_to_none=True)
        return float(norm)

    def tensors(self) -> dict[str, torch.Tensor]:
        """State as named tensors, "<part>.<parameter index>.<key>"."""
        return {
            f"{number}.{index}.{key}": value
            for number, part in enumerate(self.parts)
            for index, entry in part.state_dict()["state"].items()
            for key, value in entry.items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for number, part in enumerate(self.parts):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in tensors.items():
                owner, index, key = name.split(".", 2)
                if int(owner) == number:
                    state.setdefault(int(index), {})[key] = value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon may train it: the matrices of a transformer's blocks, the filters of a codec (outputs by inputs, rows and columns)."""
    return (parameter.ndim == 2 and name.startswith("blocks.")) or parameter.ndim == 4


class Ema:
    """Exponential moving average of a role's trained weights, float32."""

    def __init__(self, spec: EmaSpec, named: list[tuple[str, nn.Parameter]]) -> None:
        self.spec, self.named = spec, named
        self.shadow = {name: p.detach().float().clone() for name, p in named}

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = self.spec.decay if step >= self.spec.start else 0.0
        for name, p in self.named:
            self.shadow[name].lerp_(p.float(), 1.0 - keep)

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        for name, p in self.named:
            p.copy_(self.shadow[name])

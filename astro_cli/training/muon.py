"""Muon with the orthogonalisation in float32, all matrices of one shape at once: much faster where there is no
bfloat16.

    m <- b m + (1 - b) g,   u = (1 - b) g + b m,   w <- (1 - lr decay) w - lr sqrt(max(1, rows / columns)) NS(u)

NS is five steps of the Newton-Schulz iteration X <- a X + (b A + c A A) X, A = X X^T, from X = u / |u|.
Source: Jordan et al. 2024 (Muon). The update is that of `torch.optim.Muon`.

Deviations: the iteration runs in float32 instead of bfloat16.
"""

from __future__ import annotations

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """For matrices, and for filters (outputs, inputs, rows, columns) as matrices of one row per output.

    State per parameter: `momentum_buffer`.
    """

    def __init__(
        self, params: list[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                updates = orthogonal(
                    torch.stack([self._momentum(parameter, group["momentum"]).flatten(1) for parameter in parameters])
                )
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(parameter), alpha=-rate)

    def _momentum(self, parameter: torch.nn.Parameter, keep: float) -> torch.Tensor:
        """Nesterov's look-ahead of the gradient's moving average."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - keep)
        return gradient.lerp(average, keep)


def orthogonal(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """Matrices with the same singular vectors and singular values near 1 (.7 to 1.2)."""
    a, b, c = COEFFICIENTS
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if tall else matrices_NRC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

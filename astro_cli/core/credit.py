"""What a credit rule makes of rewards: the terms of a loss, each a credit per sample or per position, with weights.

    L = sum over terms k of mean over samples i of w_ik L(A_ik)

One term without weights is a plain policy loss. Several terms are losses that are added, each clipped on its own: the
joint reward of TeleBoost (arXiv 2602.07595, Eq. 5) adds c_k L(A_k), BPGO (arXiv 2511.18919) adds w L(A) and zeta L(A~).
Dimensions: P prompt, G sample of a prompt, B sample of a batch, F latent frame, h, w latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

CreditForm = Literal["sample", "map"]


@dataclass(frozen=True)
class Term:
    """The credit that one loss is computed with.

    Attributes:
        value: (P, G) of a rule and (B,) of a batch; as a map (P, G, F, h, w) and (B, F, h, w).
        weight: of each group's loss, (P,) of a rule and (B,) of a batch; absent: 1.
    """

    value: torch.Tensor
    weight: torch.Tensor | None = None

    def rows(self, rows: slice | torch.Tensor) -> Term:
        """The samples of a batch at these rows."""
        return Term(self.value[rows], None if self.weight is None else self.weight[rows])

    def to(self, device: torch.device) -> Term:
        return Term(self.value.to(device), None if self.weight is None else self.weight.to(device))

    def mean(self, loss_B: torch.Tensor) -> torch.Tensor:
        """Mean over the batch of its samples' losses (B,), each times its weight."""
        return loss_B.mean() if self.weight is None else (self.weight.to(loss_B) * loss_B).mean()


@dataclass(frozen=True)
class Credit:
    """What a credit rule returns for all samples of an epoch: the terms of the loss and metrics for the log."""

    terms: tuple[Term, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def per_sample(self) -> torch.Tensor:
        """(P, G) sum over terms of weight times credit, a map by its mean: what diagnostics show."""
        total = None
        for term in self.terms:
            value = term.value.mean((2, 3, 4)) if term.value.ndim > 2 else term.value
            value = value if term.weight is None else term.weight[:, None] * value
            total = value if total is None else total + value
        assert total is not None, "a credit has terms"
        return total

    def of_prompts(self, prompts: slice) -> tuple[Term, ...]:
        """The terms of these prompts' samples as a batch: a row per sample, prompts in order, each with its samples."""
        terms = []
        for term in self.terms:
            value, weight = term.value[prompts], term.weight
            weight = None if weight is None else weight[prompts].repeat_interleave(value.shape[1])
            terms.append(Term(value.flatten(0, 1), weight))
        return tuple(terms)

    def problem(self, form: CreditForm, samples: tuple[int, int], grid: tuple[int, int, int]) -> str:
        """What is wrong with this credit for (P, G) samples on a latent grid (F, h, w), in words; empty if all is
        well."""
        expected = samples if form == "sample" else (*samples, *grid)
        for number, term in enumerate(self.terms, 1):
            where = f"term {number} of {len(self.terms)}: "
            if tuple(term.value.shape) != expected:
                return f"{where}credit of shape {tuple(term.value.shape)}, expected {expected}"
            if term.weight is not None and tuple(term.weight.shape) != samples[:1]:
                return f"{where}weights of shape {tuple(term.weight.shape)}, expected {samples[:1]}"
            for tensor in (term.value, term.weight):
                if tensor is not None and not bool(tensor.isfinite().all()):
                    return f"{where}{int((~tensor.isfinite()).sum())} values are not finite"
        return "" if self.terms else "no term, expected at least one"

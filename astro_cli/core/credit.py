"""What a credit rule makes of rewards: the terms of a loss, each a credit per sample, with weights and allocation maps.

    L = sum over terms k of mean over samples i of w_ik L(A_ik, M_ik)

One term without weights is a plain policy loss. Several terms are losses that are added, each clipped on its own: the
joint reward of TeleBoost (arXiv 2602.07595, Eq. 5) adds c_k L(A_k), BPGO (arXiv 2511.18919) adds w L(A) and zeta L(A~).
A map says where a sample's credit goes: position p has A^p = M(p) A (ViPO, arXiv 2511.18719).
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
        value: A, (P, G) of a rule and (B,) of a batch.
        weight: of each group's loss, (P,) of a rule and (B,) of a batch; absent: 1.
        map: M, how A is allocated, (P, G, F, h, w) of a rule and (B, F, h, w) of a batch; absent: everywhere alike.
    """

    value: torch.Tensor
    weight: torch.Tensor | None = None
    map: torch.Tensor | None = None

    def rows(self, rows: slice | torch.Tensor) -> Term:
        """The samples of a batch at these rows."""
        return Term(self.value[rows], *(None if part is None else part[rows] for part in (self.weight, self.map)))

    def to(self, device: torch.device) -> Term:
        return Term(
            self.value.to(device), *(None if part is None else part.to(device) for part in (self.weight, self.map))
        )

    def mean(self, loss_B: torch.Tensor) -> torch.Tensor:
        """Mean over the batch of its samples' losses (B,), each times its weight."""
        return loss_B.mean() if self.weight is None else (self.weight.to(loss_B) * loss_B).mean()


@dataclass(frozen=True)
class Credit:
    """What a credit rule returns for all samples of an epoch: the terms of the loss and metrics for the log."""

    terms: tuple[Term, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def per_sample(self) -> torch.Tensor:
        """(P, G) sum over terms of weight times credit times the map's mean: what diagnostics show."""
        total = None
        for term in self.terms:
            value = term.value if term.map is None else term.value * term.map.mean((2, 3, 4))
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
            places = None if term.map is None else term.map[prompts].flatten(0, 1)
            terms.append(Term(value.flatten(0, 1), weight, places))
        return tuple(terms)

    def problem(self, form: CreditForm, samples: tuple[int, int], grid: tuple[int, int, int]) -> str:
        """What is wrong with this credit for (P, G) samples on a latent grid (F, h, w), in words; empty if all is
        well."""
        for number, term in enumerate(self.terms, 1):
            where = f"term {number} of {len(self.terms)}: "
            if tuple(term.value.shape) != samples:
                return f"{where}credit of shape {tuple(term.value.shape)}, expected {samples}"
            if term.weight is not None and tuple(term.weight.shape) != samples[:1]:
                return f"{where}weights of shape {tuple(term.weight.shape)}, expected {samples[:1]}"
            shape = None if term.map is None else tuple(term.map.shape)
            if shape != (wanted := (*samples, *grid) if form == "map" else None):
                return f"{where}{_map_of(shape)}, expected {_map_of(wanted)}"
            for tensor in (term.value, term.weight, term.map):
                if tensor is not None and not bool(tensor.isfinite().all()):
                    return f"{where}{int((~tensor.isfinite()).sum())} values are not finite"
        return "" if self.terms else "no term, expected at least one"


def _map_of(shape: tuple[int, ...] | None) -> str:
    return "no map" if shape is None else f"a map of shape {shape}"

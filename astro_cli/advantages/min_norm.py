"""Joint reward by minimum norm: weights of the rewards under which their advantages conflict least.

    min_c | sum_k c_k A_k |^2,   c_k >= 0,   sum_k c_k = 1          (Eq. 4)
    L = sum_k c_k L(A_k)                                            (Eq. 5)

A_k is the vector of a reward's advantages over the samples of the epoch, or of a group. For two rewards c has a closed
form; for more it is found by Frank-Wolfe from the uniform weights, with line search.
Source: TeleBoost (arXiv 2602.07595) section 3.5, Eq. 3-5. Dimensions: P prompt, G sample of a prompt, K reward.

**Deviations**: advantages are centred, not divided by their deviation: vectors of one length always give two rewards
(1/2, 1/2). Vectors shorter than `floor` are left out, since a reward that is the same everywhere would get all of the
weight. `renorm` divides by the combined deviation, which shrinks where rewards conflict. `loss = "combined"` is one
clipped loss of the combined advantage. Frank-Wolfe takes pairwise steps, from the worst vertex in use to the best.
TeleBoost's released code has no vectors: it brackets zero per sample.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from astro_cli.advantages.base import Advantage as BaseAdvantage
from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import Scale, group_advantage
from astro_cli.advantages.joint import optimised
from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.credit import Credit, Term


class Config(BaseConfig):
    """`over`: whose samples a vector holds. `iterations`, `tolerance`: of Frank-Wolfe, whose gap it is."""

    scale: Scale = "none"
    over: Literal["epoch", "group"] = "epoch"
    loss: Literal["sum", "combined"] = "sum"
    renorm: bool = True
    floor: float = Field(default=1e-6, ge=0)
    iterations: int = Field(default=2000, gt=0)
    tolerance: float = Field(default=1e-9, gt=0)


def min_norm(gram_KK: torch.Tensor, iterations: int = 2000, tolerance: float = 1e-9) -> torch.Tensor:
    """(K,) float64 weights on the simplex that minimise c' M c, M the Gram matrix of the vectors.

    Args:
        tolerance: of the gap c' M c - min_k (M c)_k, as a share of the longest vector's square.
    """
    gram, count = gram_KK.double(), len(gram_KK)
    weights = torch.full((count,), 1.0 / count, dtype=torch.float64, device=gram.device)
    if count == 2:
        distance = gram[0, 0] - 2 * gram[0, 1] + gram[1, 1]  # |A_1 - A_2|^2
        if distance > 0:
            first = ((gram[1, 1] - gram[0, 1]) / distance).clamp(0, 1)
            weights = torch.stack((first, 1 - first))
        return weights
    bound = tolerance * gram.diagonal().max()
    for _ in range(iterations):
        slope = gram @ weights
        best, worst = int(slope.argmin()), int(torch.where(weights > 0, slope, -torch.inf).argmax())
        if weights @ slope - slope[best] <= bound:
            break
        curve = gram[best, best] - 2 * gram[best, worst] + gram[worst, worst]
        along = (slope[worst] - slope[best]) / curve if curve > 0 else weights[worst]
        step = torch.minimum(along, weights[worst])
        weights[best] += step
        weights[worst] -= step
    return weights


class Advantage(BaseAdvantage):
    config: Config

    def credit(self, scored: Scored, state: dict[str, torch.Tensor]) -> Credit:
        scores = {key: scored.weights[key] * value for key, value in optimised(scored).items()}
        advantage_KPG = torch.stack([group_advantage(value, self.config.scale) for value in scores.values()])
        weight_PK = self._weights(advantage_KPG)
        combined = torch.einsum("pk,kpg->pg", weight_PK, advantage_KPG)
        scale = 1.0 / combined.std().clamp_min(self.config.floor) if self.config.renorm else combined.new_ones(())
        metrics = {f"weight/{key}": weight_PK[:, row].mean().item() for row, key in enumerate(scores)}
        metrics |= {f"norm/{key}": advantage_KPG[row].norm().item() for row, key in enumerate(scores)}
        metrics |= {
            "norm/combined": combined.norm().item(),
            "left_out": self._short(advantage_KPG).float().mean().item(),
        }
        if self.config.loss == "combined":
            return Credit((Term(scale * combined),), metrics)
        # With `renorm` of unit deviation, so that an objective's bound on advantages means the same for every reward.
        size_K = advantage_KPG.flatten(1).std(1).clamp_min(self.config.floor)
        size_K = size_K if self.config.renorm else torch.ones_like(size_K)
        terms = (
            Term(advantage_KPG[row] / size_K[row], weight_PK[:, row] * scale * size_K[row])
            for row in range(len(scores))
        )
        return Credit(tuple(terms), metrics)

    def _vectors(self, advantage_KPG: torch.Tensor) -> torch.Tensor:
        """(Q, K, samples): one problem for the epoch, or one for each group."""
        return advantage_KPG.flatten(1)[None] if self.config.over == "epoch" else advantage_KPG.movedim(1, 0)

    def _short(self, advantage_KPG: torch.Tensor) -> torch.Tensor:
        """(Q, K) which vectors are left out."""
        return self._vectors(advantage_KPG).norm(dim=2) < self.config.floor

    def _weights(self, advantage_KPG: torch.Tensor) -> torch.Tensor:
        """(P, K) weights of every group's losses; where all vectors are left out, the uniform ones."""
        rows = []
        for vectors_KN, short_K in zip(self._vectors(advantage_KPG), self._short(advantage_KPG), strict=True):
            kept = (~short_K).nonzero().flatten()
            weights = vectors_KN.new_full((len(vectors_KN),), 1.0 / len(vectors_KN))
            if len(kept):
                gram = vectors_KN[kept].double() @ vectors_KN[kept].double().T
                solved = min_norm(gram, self.config.iterations, self.config.tolerance)
                weights = torch.zeros_like(weights).index_put((kept,), solved.to(weights))
            rows.append(weights)
        return torch.stack(rows).expand(advantage_KPG.shape[1], -1)

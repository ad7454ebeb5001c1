"""Where the primary reward stands alone: rank disagreement, its threshold and the adaptive risk ratio.

    Delta_i = rank_p(i) - mean_{m != p} rank_m(i)          rank 0 is the lowest score
    tau     = percentile of {Delta_i >= 0} at 100 - 100 rho          M_i = 1[Delta_i > tau]
    rho     <- 1.1 rho where mean {Delta_i >= 0} exceeds the buffer, 0.9 rho where it is below, within [0.02, 0.2]

Delta > 0: the primary ranks the sample above the others. "Exceeds" and "below" mean every value of the buffer.

Source: Astrolabe (arXiv 2603.17051) section 3.4, Algorithm 1 lines 9-17; constants of UPDATERISKRATIO from its released
code.
Dimensions: K reward (the primary first), N sample of the epoch.

**Deviations**: the released code gives rank 1 to the best sample, so its positive Delta marks what the primary ranks
*below* the others; the paper's text ("high positive values indicate likely reward hacking") is followed. Tied samples
share their mean rank (released: order of arrival).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

FIRST_RATIO = 0.1  # released: rho_0
RAISE, LOWER = 1.1, 0.9
RATIO_MIN, RATIO_MAX = 0.02, 0.2
BUFFER = 20  # epochs


def ranks(scores_N: torch.Tensor) -> torch.Tensor:
    """Ranks (N,) float64 from 0 for the lowest score; tied scores share the mean of their ranks."""
    below = (scores_N[None, :] < scores_N[:, None]).sum(1)
    equal = (scores_N[None, :] == scores_N[:, None]).sum(1)
    return below.double() + (equal.double() - 1) / 2


def rank_disagreement(scores_KN: torch.Tensor) -> torch.Tensor:
    """Delta (N,) float64; row 0 holds the primary reward. Positive: over-scored by the primary."""
    assert len(scores_KN) > 1, "disagreement needs an auxiliary reward"
    ranked = torch.stack([ranks(row) for row in scores_KN])
    return ranked[0] - ranked[1:].mean(0)


def threshold(delta_N: torch.Tensor, ratio: float) -> float:
    """tau: the (100 - 100 ratio)-th percentile, linearly interpolated, of the disagreements that are not negative
    (their sum is zero: some exist).
    """
    return torch.quantile(delta_N[delta_N >= 0], 1.0 - ratio).item()


@dataclass
class RiskRatio:
    """rho and the buffer of the last epochs' mean positive disagreements."""

    ratio: float = FIRST_RATIO
    buffer: list[float] = field(default_factory=list)

    def update(self, delta_N: torch.Tensor) -> float:
        """UPDATERISKRATIO with this epoch's disagreements; returns the new rho."""
        mean = delta_N[delta_N >= 0].mean().item()
        if self.buffer and mean > max(self.buffer):
            self.ratio *= RAISE
        elif self.buffer and mean < min(self.buffer):
            self.ratio *= LOWER
        self.ratio = min(max(self.ratio, RATIO_MIN), RATIO_MAX)
        self.buffer = [*self.buffer, mean][-BUFFER:]
        return self.ratio

    def state(self) -> torch.Tensor:
        """float64 (1 + buffer): rho, then the buffer."""
        return torch.tensor([self.ratio, *self.buffer], dtype=torch.float64)

    def load(self, state: torch.Tensor) -> None:
        self.ratio, *self.buffer = state.tolist()

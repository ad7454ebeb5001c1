"""When a KL reference is reset to the policy: Algorithm 1's rule, or the released code's with its moving threshold.

    reset where KL > tau or more than K_max epochs have passed since the last reset

Source: Astrolabe (arXiv 2603.17051) Algorithm 1, lines 34-37; the released rule is from its code.

**Deviations**: the paper's tau_KL is a constant it does not print. The released rule lowers tau by 0.01 (not below 0.1)
after a reset that only waiting brought, and after one within 5 epochs sets min(tau + 0.01, 0.05), which lowers it too.
It is kept as released.
"""

from __future__ import annotations

import torch

SOON = 5  # epochs
STEP, FLOOR, CEILING = 0.01, 0.1, 0.05


class ResetRule:
    """Args: tau, K_max in epochs, and whether tau moves as in the released code."""

    def __init__(self, threshold: float, patience: int, *, released: bool = False) -> None:
        self.threshold, self.patience, self.released = threshold, patience, released
        self.last = 0

    def due(self, epoch: int, kl: float) -> bool:
        """Whether to reset after this epoch, whose mean KL term is `kl`; remembers that it was."""
        waited = epoch - self.last
        if not (kl > self.threshold or waited > self.patience):
            return False
        self.last = epoch
        if self.released and waited > self.patience:
            self.threshold = max(self.threshold - STEP, FLOOR)
        elif self.released and waited < SOON:
            self.threshold = min(self.threshold + STEP, CEILING)
        return True

    def state(self) -> torch.Tensor:
        """float64 (2): epoch of the last reset, tau."""
        return torch.tensor([self.last, self.threshold], dtype=torch.float64)

    def load(self, state: torch.Tensor) -> None:
        last, self.threshold = state.tolist()
        self.last = int(last)

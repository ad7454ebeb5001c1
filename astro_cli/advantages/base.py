"""The contract of a credit rule: rewards grouped by prompt -> credit per sample. Holds no formula."""

from __future__ import annotations

from typing import Protocol

import torch


class Advantage(Protocol):
    def credit(self, rewards_PG: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        """Credit (P, G) of rewards (P, G): P prompts, G samples each, a prompt's samples in its row."""
        ...

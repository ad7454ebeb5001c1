"""The contract of a sink policy: what the sink holds after frames were evicted. Knows no indices."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import torch


class SinkPolicy(Protocol):
    def update(self, key: Hashable, sink: torch.Tensor, evicted: torch.Tensor) -> torch.Tensor:
        """New sink (B, H, sink tokens, D) of the buffer named `key`, given the tokens that leave the window, oldest first."""
        ...

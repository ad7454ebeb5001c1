"""EMA sink of Reward Forcing (arXiv 2512.04678, section 3.3): evicted frames are blended into the sink, token by token.

    S_i = alpha S_(i-1) + (1 - alpha) K_evicted

alpha = 1 is the fixed sink. Deviations: the running sink is kept in float32 whatever the cache's dtype (in bfloat16, rounding swallows 99.5 % of an
alpha = 0.999 update; reference, section 6.1). The released code overwrites the sink when the evicted length differs from the sink's; here the
evicted frames are folded in one after the other, each into the sink frame whose turn it is.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch


class EmaSink:
    """Args: alpha in [0, 1], the share of the old sink that is kept per eviction."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._running: dict[Hashable, torch.Tensor] = {}
        self._turn: dict[Hashable, int] = {}

    def update(self, key: Hashable, sink: torch.Tensor, evicted: torch.Tensor) -> torch.Tensor:
        running = self._running.get(key)
        if running is None:
            running = sink.float().clone()
        size, turn = sink.shape[2], self._turn.get(key, 0)
        done = 0
        while done < evicted.shape[2]:
            length = min(size - turn, evicted.shape[2] - done)
            rows = slice(turn, turn + length)
            running[:, :, rows] = self.alpha * running[:, :, rows] + (1 - self.alpha) * evicted[:, :, done : done + length].float()
            done, turn = done + length, (turn + length) % size
        self._running[key], self._turn[key] = running, turn
        return running.to(sink.dtype)

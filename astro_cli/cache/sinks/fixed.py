"""Fixed sink: the first frames stay as they are (LongLive, Astrolabe; a sink of 0 frames is no sink)."""

from __future__ import annotations

from collections.abc import Hashable

import torch


class FixedSink:
    def update(self, key: Hashable, sink: torch.Tensor, evicted: torch.Tensor) -> torch.Tensor:
        return sink

"""Fixed sink: the first frames stay as they are (LongLive, Astrolabe; a sink of 0 frames is no sink)."""

from __future__ import annotations

from typing import ClassVar

import torch


class FixedSink:
    blends: ClassVar[bool] = False

    def update(self, sink_BHLD: torch.Tensor, evicted_BHLD: torch.Tensor) -> torch.Tensor:
        return sink_BHLD

"""The contract of a sink policy: a pure function that says what the sink holds after frames were evicted."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch


class SinkPolicy(Protocol):
    """Keys arrive before rotation, so that what is blended has no position."""

    # Whether evicted frames change the sink. If so, the cache keeps the sink in float32 beside its own dtype.
    blends: ClassVar[bool]

    def update(self, sink_BHLD: torch.Tensor, evicted_BHLD: torch.Tensor) -> torch.Tensor:
        """New sink tokens, float32, given as many tokens that leave the window; only called where `blends`."""
        ...

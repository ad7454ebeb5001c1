"""EMA sink of Reward Forcing (arXiv 2512.04678, section 3.2): evicted frames are blended into the sink, token by token.

    S_i = alpha S_(i-1) + (1 - alpha) K_evicted,   K before rotation, and V alike

alpha = 1 is the fixed sink.

**Deviations**: the sink is kept in float32 whatever the cache's dtype (in bfloat16, rounding swallows 99.5 % of an
alpha = 0.999 update). The released code overwrites the sink when the evicted length differs from the sink's; here
evicted frame f goes into sink frame f mod n of n, so equal lengths blend as released and others blend too.
"""

from __future__ import annotations

from typing import ClassVar

import torch


class EmaSink:
    """Args: alpha in [0, 1], the share of the old sink that is kept per eviction."""

    blends: ClassVar[bool] = True

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def update(self, sink_BHLD: torch.Tensor, evicted_BHLD: torch.Tensor) -> torch.Tensor:
        return self.alpha * sink_BHLD.float() + (1 - self.alpha) * evicted_BHLD.float()

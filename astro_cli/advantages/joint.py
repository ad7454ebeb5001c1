"""Joint training on several rewards: each has its own advantages.

    sum     L = sum_k w_k L(A_k)                    one clipped loss per reward
    gdpo    A = z( sum_k w_k A_k )                  one loss, deviation 1 over the epoch's samples

A_k are a reward's own group advantages, w_k the recipe's weights. The weighted sum of the rewards is `group`.
Source: DanceGRPO (arXiv 2505.07818) for `sum`, the plain sum of TeleBoost (arXiv 2602.07595) section 3.5; GDPO as in
Flow-Factory. Dimensions: P prompt, G sample of a prompt, K reward.

**Deviations**: none.
"""

from __future__ import annotations

from typing import Literal

import torch

from astro_cli.advantages.base import Advantage as BaseAdvantage
from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import EPSILON, Scale, group_advantage
from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.credit import Credit, Term


class Config(BaseConfig):
    combine: Literal["sum", "gdpo"] = "sum"
    scale: Scale = "group"


def optimised(scored: Scored) -> dict[str, torch.Tensor]:
    """(P, G) scores of the rewards that have a weight, in the recipe's order."""
    return {key: scored.scores[key] for key, weight in scored.weights.items() if weight}


def every(value: float | torch.Tensor, scored: Scored) -> torch.Tensor:
    """(P,) the same weight for every group."""
    first = next(iter(scored.scores.values()))
    return torch.as_tensor(value, dtype=first.dtype, device=first.device).expand(len(first))


class Advantage(BaseAdvantage):
    config: Config

    def credit(self, scored: Scored, state: dict[str, torch.Tensor]) -> Credit:
        own = {key: group_advantage(scores, self.config.scale) for key, scores in optimised(scored).items()}
        if self.config.combine == "sum":
            return Credit(tuple(Term(value, every(scored.weights[key], scored)) for key, value in own.items()))
        total = torch.stack([scored.weights[key] * value for key, value in own.items()]).sum(0)
        return Credit((Term((total - total.mean()) / (total.std() + EPSILON)),))

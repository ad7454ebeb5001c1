"""Group advantage: rewards centred within their prompt's group, divided by nothing, the epoch's or the group's
deviation.

    A_i = (R_i - mean_group R) / scale

Source: Astrolabe (arXiv 2603.17051) Eq. 4 (centring) and Table S1 ("Global Std with Per-Prompt Tracking").
R is the weighted sum of the rewards (section 3.4).
Dimensions: P prompts, G samples per prompt.

Deviations: `scale = "global"` divides by the deviation of all rewards of the step as Table S1 and the released code do,
here the unbiased one; "released" is the released code's population deviation. The paper's Eq. 4 alone is "none".
"group" (GRPO) divides by each group's own deviation.
"""

from __future__ import annotations

from typing import Literal

import torch

from astro_cli.advantages.base import Advantage as BaseAdvantage
from astro_cli.advantages.base import Scored
from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.credit import Credit, Term

EPSILON = 1e-4  # as released; keeps a group of equal rewards at zero credit
Scale = Literal["none", "global", "released", "group"]


class Config(BaseConfig):
    scale: Scale = "global"


def group_advantage(rewards_PG: torch.Tensor, scale: Scale) -> torch.Tensor:
    """A (P, G) of rewards (P, G), a prompt's samples in its row."""
    centred = rewards_PG - rewards_PG.mean(1, keepdim=True)
    if scale == "none":
        return centred
    if scale in ("global", "released"):
        return centred / (rewards_PG.std(correction=int(scale == "global")) + EPSILON)
    return centred / (rewards_PG.std(1, keepdim=True) + EPSILON)


class Advantage(BaseAdvantage):
    config: Config

    def credit(self, scored: Scored, state: dict[str, torch.Tensor]) -> Credit:
        return Credit((Term(group_advantage(scored.total(), self.config.scale)),))

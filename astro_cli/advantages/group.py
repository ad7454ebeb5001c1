"""Group advantage: rewards centred within their prompt's group, divided by nothing, the epoch's or the group's deviation.

    A_i = (R_i - mean_group R) / scale

Source: Astrolabe (arXiv 2603.17051) Eq. 4 (centring) and Table S1 ("Global Std with Per-Prompt Tracking"); reference, section 7.4.
Dimensions: P prompts, G samples per prompt.

Deviations: `scale = "global"` divides by the deviation of all rewards of the step as Table S1 and the released code do, here the unbiased one;
"released" is the released code's population deviation. The paper's Eq. 4 alone is "none". "group" (GRPO) divides by each group's own deviation.
"""

from __future__ import annotations

from typing import Literal

import torch

from astro_cli.config.base import Config as BaseConfig

EPSILON = 1e-4  # as released; keeps a group of equal rewards at zero credit


class Config(BaseConfig):
    scale: Literal["none", "global", "released", "group"] = "global"


class Advantage:
    def __init__(self, config: Config) -> None:
        self.config = config

    def credit(self, rewards_PG: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        centred = rewards_PG - rewards_PG.mean(1, keepdim=True)
        if self.config.scale == "none":
            return centred
        if self.config.scale in ("global", "released"):
            return centred / (rewards_PG.std(correction=int(self.config.scale == "global")) + EPSILON)
        return centred / (rewards_PG.std(1, keepdim=True) + EPSILON)

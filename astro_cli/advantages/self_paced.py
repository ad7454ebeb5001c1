"""Self-paced GRPO: the rewards' shares follow what the policy has mastered and what still tells its samples apart.

    S_j = ( sqrt(G) - |r_j|_1 / |r_j|_2 ) / ( sqrt(G) - 1 )                         Hoyer sparsity over the group
    g_j = sigmoid( a (mean_i r_ij - tau_j) ) + b (S_j - S_{j+1}),   S_{K+1} = 0
    c = softmax(g / T),   R_i = sum_j c_j r_ij,   A = z-score of R over the group

Rewards come in the recipe's order: visual, temporal, semantic. r_j is the reward mapped to [0, 1]. a = T = 1 is the
paper's text.
Source: TeleBoost (arXiv 2602.07595) section 3.4; Self-Paced GRPO (Li et al. 2025), of which no code is public.
Dimensions: P prompt, G sample of a prompt, J reward.

**Deviations**: the text says that rewards are about in [0, 1], not how. Here a range is mapped to it and cut off there:
`ranges` where they are given, else quantiles of the base's scores; `caps` lowers a reward's upper quantile, so that it
saturates. With a = T = 1 the shares stay near uniform: the text's three phases are a tendency only. Vectors that are 0
have sparsity 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field

from astro_cli.advantages.base import Advantage as BaseAdvantage
from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import group_advantage
from astro_cli.advantages.joint import optimised
from astro_cli.config.base import Config as BaseConfig
from astro_cli.config.errors import RunError, did_you_mean
from astro_cli.core.credit import Credit, Term

TINY = 1e-12
SAME = 1e-6  # deviation below which a group's rewards teach nothing


class Config(BaseConfig):
    """Gates and shares.

    Attributes:
        thresholds: tau_j, one for all rewards or one each by name.
        sparsity: b.
        sharpness, temperature: a, T.
        statistics: mean and sparsity of each group, or their means over the epoch's groups.
        ranges: [low, high] of a reward, mapped to 0 and 1.
        quantiles: of the base's scores, where a reward has no range.
        caps: upper quantile of a reward instead.
        base_samples: clips of the base per prompt that ranges are measured on.
    """

    thresholds: float | dict[str, float] = 0.75
    sparsity: float = Field(default=0.3, ge=0)
    sharpness: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    statistics: Literal["group", "epoch"] = "group"
    ranges: dict[str, tuple[float, float]] = Field(default={})
    quantiles: tuple[float, float] = (0.01, 0.99)
    caps: dict[str, float] = Field(default={})
    base_samples: int = Field(default=8, gt=1)


def hoyer(values: torch.Tensor) -> torch.Tensor:
    """Sparsity of the last dimension (G > 1): 0 where all are equal or 0, 1 where one is not 0."""
    root = math.sqrt(values.shape[-1])
    length = values.norm(dim=-1)
    ratio = values.abs().sum(-1) / length.clamp_min(TINY)
    return torch.where(length > TINY, (root - ratio) / (root - 1), 0.0)


def shares(mean_PJ: torch.Tensor, sparsity_PJ: torch.Tensor, threshold_J: torch.Tensor, config: Config) -> torch.Tensor:
    """c (P, J), positive, with sum 1."""
    following = torch.cat((sparsity_PJ[:, 1:], torch.zeros_like(sparsity_PJ[:, :1])), 1)
    gate = (config.sharpness * (mean_PJ - threshold_J)).sigmoid() + config.sparsity * (sparsity_PJ - following)
    return (gate / config.temperature).softmax(1)


class Advantage(BaseAdvantage):
    wants_base = "some"
    config: Config

    def base_clips(self, rewards: Iterable[str]) -> int:
        """None where every reward has a range."""
        return 0 if set(rewards) <= self.config.ranges.keys() else super().base_clips(rewards)

    def misnamed(self, rewards: Iterable[str]) -> str:
        known, config = set(rewards), self.config
        for key in ("thresholds", "ranges", "caps"):
            table = getattr(config, key)
            given = set(table) if isinstance(table, dict) else known
            if unknown := sorted(given - known):
                return f"{key}.{unknown[0]}: no reward that is optimised, {did_you_mean(unknown[0], known)}"
            if key == "thresholds" and (missing := sorted(known - given)):
                return f"{key}.{missing[0]}: missing, expected one for every reward or one number"
        return ""

    def credit(self, scored: Scored, state: dict[str, torch.Tensor]) -> Credit:
        mapped = {key: self._mapped(key, value, scored, state) for key, value in optimised(scored).items()}
        reward_PJG = torch.stack(list(mapped.values()), 1)
        mean_PJ, sparsity_PJ = reward_PJG.mean(2), hoyer(reward_PJG)
        if self.config.statistics == "epoch":
            mean_PJ, sparsity_PJ = (part.mean(0, keepdim=True).expand_as(part) for part in (mean_PJ, sparsity_PJ))
        given = self.config.thresholds
        thresholds = mean_PJ.new_tensor([given[key] if isinstance(given, dict) else given for key in mapped])
        share_PJ = shares(mean_PJ, sparsity_PJ, thresholds, self.config)
        total_PG = (share_PJ[..., None] * reward_PJG).sum(1)
        metrics = {f"share/{key}": share_PJ[:, row].mean().item() for row, key in enumerate(mapped)}
        metrics |= {f"sparsity/{key}": sparsity_PJ[:, row].mean().item() for row, key in enumerate(mapped)}
        metrics |= {f"competence/{key}": mean_PJ[:, row].mean().item() for row, key in enumerate(mapped)}
        metrics["zero_variance_groups"] = (total_PG.std(1) < SAME).float().mean().item()
        return Credit((Term(group_advantage(total_PG, "group")),), metrics)

    def _mapped(
        self, key: str, scores_PG: torch.Tensor, scored: Scored, state: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """(P, G) in [0, 1]."""
        if key in self.config.ranges:
            low, high = self.config.ranges[key]
        else:
            name = f"range.{key}"
            if name not in state:
                state[name] = self._measured(key, scored)
            low, high = state[name].tolist()
        if high <= low:
            what = f"found [{low:.4g}, {high:.4g}] of the base's scores, they do not differ"
            raise RunError("advantage", f"ranges.{key}", what, hint=f"give advantage.ranges.{key}")
        return ((scores_PG - low) / (high - low)).clamp(0, 1)

    def _measured(self, key: str, scored: Scored) -> torch.Tensor:
        """(2,) double: the quantiles of the base's scores."""
        assert scored.base is not None, "it wants the base"
        low, high = self.config.quantiles
        wanted = torch.tensor((low, self.config.caps.get(key, high)), dtype=torch.float64)
        return scored.base[key].double().flatten().cpu().quantile(wanted)

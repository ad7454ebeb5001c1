"""BPGO: a prior of each prompt's reward, from the base, decides how far its group and its samples are trusted.

    RAS     w = 1 + alpha [ 2 sigmoid( k (mean_g R - prior) ) - 1 ]                      of a group's loss
    CRT     R~ = ( lambda (R - prior) + 1{R > prior} ) exp(R)                            of a sample's reward
    L = w L(A(R)) + zeta L(A(R~)),   A the z-score over the group

The prior is the mean reward of the base on the prompt. Rewards are standardised over the base first: mean 0 and
deviation 1 over all its samples, so that alpha, k and lambda mean the same for every reward.
Source: BPGO (arXiv 2511.18919); TeleBoost (arXiv 2602.07595) section 3.3. `bayes` and `replace` are its released code:
`bayes` weighs a group by the posterior probability that its mean exceeds the prior, under a Normal prior of variance 1;
`replace` trains on R~ = ( a (R - prior) + 1{R > prior} ) R / (1 + exp(-R / tau)) instead of R.
Dimensions: P prompt, G sample of a prompt, Q prompt of the base, N clip of the base per prompt.

`replace` multiplies by the reward, so it ranks samples the wrong way round where rewards are negative: it takes raw
rewards that are not.

**Deviations**: the release has alpha 1 in `bayes`, here it is given. The paper gives no k, lambda and zeta; they are 1,
as in a published fork of the release. The report says that groups of high variance are scaled down; the paper's w does
not see the variance, `bayes` does.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from astro_cli.advantages.base import Advantage as BaseAdvantage
from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import group_advantage
from astro_cli.config.base import Config as BaseConfig
from astro_cli.config.errors import RunError
from astro_cli.core.credit import Credit, Term

EXPONENT_MAX = 30.0  # released
PRIOR_VARIANCE = 1.0  # released; of `bayes`
WEIGHT_RANGE = (0.01, 10.0)  # released; of `bayes`
SPREAD_MIN = 1e-8


class Config(BaseConfig):
    """Both mechanisms, each in one of its readings or off.

    Attributes:
        alpha, sharpness: of w; the sharpness is k.
        slope, zeta: lambda, and the weight of the second loss.
        released_slope, released_scale: a and tau of `replace`.
        standardise: rewards over the base's.
        base_samples: N.
    """

    ras: Literal["paper", "bayes", "none"] = "paper"
    crt: Literal["paper", "replace", "none"] = "paper"
    alpha: float = Field(default=0.5, ge=0)
    sharpness: float = Field(default=1.0, gt=0)
    slope: float = Field(default=1.0, ge=0)
    zeta: float = Field(default=1.0, ge=0)
    released_slope: float = Field(default=50.0, ge=0)
    released_scale: float = Field(default=5.0, gt=0)
    standardise: bool = True
    base_samples: int = Field(default=32, gt=1)

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.crt == "replace" and self.standardise:
            raise ValueError("standardise: found true with crt = 'replace', which multiplies by the reward: set false")
        return self


def reliability(mean_P: torch.Tensor, prior_P: torch.Tensor, alpha: float, sharpness: float) -> torch.Tensor:
    """w (P,) of RAS, in [1 - alpha, 1 + alpha]."""
    return 1 + alpha * (2 * (sharpness * (mean_P - prior_P)).sigmoid() - 1)


def posterior_reliability(reward_PG: torch.Tensor, prior_P: torch.Tensor, alpha: float) -> torch.Tensor:
    """w (P,) of the release: 1 + alpha (P(group mean > prior) - 1/2)."""
    spread = reward_PG.var(1).clamp_min(SPREAD_MIN)
    variance = 1 / (reward_PG.shape[1] / spread + 1 / PRIOR_VARIANCE)
    mean = variance * (reward_PG.shape[1] * reward_PG.mean(1) / spread + prior_P / PRIOR_VARIANCE)
    above = 1 - torch.special.ndtr((prior_P - mean) / variance.sqrt())
    return (1 + alpha * (above - 0.5)).clamp(*WEIGHT_RANGE)


def contrasted(reward_PG: torch.Tensor, prior_P: torch.Tensor, slope: float) -> torch.Tensor:
    """R~ (P, G) of CRT."""
    above = reward_PG - prior_P[:, None]
    return (slope * above + (above > 0)) * reward_PG.clamp_max(EXPONENT_MAX).exp()


def released_contrast(reward_PG: torch.Tensor, prior_P: torch.Tensor, slope: float, scale: float) -> torch.Tensor:
    """R~ (P, G) of the release."""
    above = reward_PG - prior_P[:, None]
    gate = 1 + (-reward_PG / scale).clamp_max(EXPONENT_MAX).exp()
    return (slope * above + (above > 0)) * reward_PG / gate


class Advantage(BaseAdvantage):
    wants_base = "prompts"
    config: Config

    def credit(self, scored: Scored, state: dict[str, torch.Tensor]) -> Credit:
        config, reward = self.config, scored.total()
        assert scored.base is not None, "it wants the base"
        assert scored.prior is not None, "on every prompt"
        prior, every = scored.weighted(scored.prior).mean(1), scored.weighted(scored.base)
        if config.standardise:
            spread = every.std().clamp_min(SPREAD_MIN)
            reward, prior = (reward - every.mean()) / spread, (prior - every.mean()) / spread
        self._check_sign(reward)
        weight, terms = self._weight(reward, prior), []
        if config.crt == "replace":
            reward = released_contrast(reward, prior, config.released_slope, config.released_scale)
        terms.append(Term(group_advantage(reward, "group"), weight))
        if config.crt == "paper":
            second = contrasted(reward, prior, config.slope)
            terms.append(Term(group_advantage(second, "group"), torch.full_like(prior, config.zeta)))
        return Credit(tuple(terms), self._metrics(scored, prior, weight))

    def _weight(self, reward_PG: torch.Tensor, prior_P: torch.Tensor) -> torch.Tensor | None:
        if self.config.ras == "none":
            return None
        if self.config.ras == "bayes":
            return posterior_reliability(reward_PG, prior_P, self.config.alpha)
        return reliability(reward_PG.mean(1), prior_P, self.config.alpha, self.config.sharpness)

    def _check_sign(self, reward_PG: torch.Tensor) -> None:
        """Raises: RunError where raw rewards below 0 would be multiplied or exponentiated."""
        if self.config.standardise or self.config.crt == "none" or bool((reward_PG >= 0).all()):
            return
        what = f"rewards down to {reward_PG.min().item():.4g} with standardise = false: CRT scales with the raw reward"
        paper = "" if self.config.crt == "paper" else ' and crt = "paper"'
        raise RunError("advantage", "bpgo", what, hint=f"set experience.advantage.standardise = true{paper}")

    def _metrics(self, scored: Scored, prior_P: torch.Tensor, weight_P: torch.Tensor | None) -> dict[str, float]:
        metrics = {"prior": prior_P.mean().item()}
        if weight_P is not None:
            metrics |= {"trust": weight_P.mean().item(), "trust_min": weight_P.min().item()}
            metrics["trust_max"] = weight_P.max().item()
        return metrics

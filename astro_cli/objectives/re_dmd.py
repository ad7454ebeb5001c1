"""Rewarded distribution matching distillation: DMD whose samples count by their reward.

    w = exp(R(x) / beta)        L = w * 1/2 || x - stopgrad(x - g) ||^2        critic as in DMD

Source: Reward Forcing (arXiv 2512.04678), section 3.3, Eq. 9-11; its released code.
Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

R is scored on the generated clip as it is, so after an early exit step on an unfinished one; the log has it per exit
step. No gradient passes through the reward or the decoder. AdamW does not feel a factor that all samples of a step
share: what acts is the spread of w within a batch.

**Deviations**: none from the paper, whose Eq. 11 drops Z(c). `rule = "released"` is the released code: `beta`
multiplies (2 there, 1 / 2 in the paper) and one sample's reward, the first of a micro-batch, weighs all. Its frames are
in [-255, 255] and in colour; here a reward gets frames in [0, 1], and MQ sees them in gray. `center` and `clamp` are
ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from astro_cli.core.background import Background
from astro_cli.objectives import dmd
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.spec import Recipe, StageSpec

QUANTILES = {"min": 0.0, "q10": 0.1, "median": 0.5, "q90": 0.9, "max": 1.0}


class Config(dmd.Config):
    """DMD's keys and the weight's.

    Attributes:
        reward: which one is R.
        beta: the smaller, the stronger the reward; with `rule = "released"` the larger.
        center: "prompt" takes off the mean over the samples of the same prompt (`data.samples` of them).
        clamp: largest absolute exponent; absent: none.
    """

    reward: Literal["vq", "mq", "ta"] = "mq"
    beta: float = Field(default=0.5, gt=0)  # section 4
    rule: Literal["paper", "released"] = "paper"
    center: Literal["none", "prompt"] = "none"
    clamp: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.rule == "released" and (self.center != "none" or self.clamp is not None):
            raise ValueError(
                'rule: found "released", expected "paper" with center or clamp: the released code has none'
            )
        return self


def reward_weights(reward_B: torch.Tensor, beta: float, clamp: float | None = None) -> torch.Tensor:
    """(B,) float64 weights exp(R / beta), the exponent within [-clamp, clamp] (Eq. 11)."""
    exponent_B = reward_B.double() / beta
    return (exponent_B if clamp is None else exponent_B.clamp(-clamp, clamp)).exp()


def released_weights(reward_B: torch.Tensor, beta: float) -> torch.Tensor:
    """(B,) float64 weights exp(beta R_0): the first sample's reward weighs all (released code)."""
    return (beta * reward_B[:1].double()).exp().expand(len(reward_B))


def centered(reward_B: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
    """Rewards less the mean over the samples of the same prompt."""
    places = {prompt: place for place, prompt in enumerate(sorted(set(prompts)))}
    own_B = torch.tensor([places[prompt] for prompt in prompts], device=reward_B.device)
    own_BP = own_B[:, None] == torch.arange(len(places), device=reward_B.device)
    mean_P = (reward_B[:, None] * own_BP).sum(0) / own_BP.sum(0)
    return reward_B - mean_P[own_B]


def effective_sample_size(weight_N: torch.Tensor) -> float:
    """(sum w)^2 / sum w^2: N for equal weights, 1 where one weight is all."""
    weight_N = weight_N.double() / weight_N.max()
    return (weight_N.sum().square() / weight_N.square().sum()).item()


class Objective(dmd.Objective):
    shards = False  # not tried divided
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.score = run_context.reward(config.reward)
        self.weights: list[torch.Tensor] = []  # of this step's samples

    @classmethod
    def rewards(cls, config: Config) -> tuple[str, ...]:
        return (config.reward,)

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        super().check(config, recipe, stage, key)
        if config.center == "prompt" and stage.data.samples < 2:
            what = 'expected 2 or more with center = "prompt", which takes off the mean over a prompt\'s samples'
            raise ValueError(f"{key}.data.samples: found {stage.data.samples}, {what}")
        if stage.batch // stage.accumulate % stage.data.samples:
            what = f"found {stage.batch}, expected accumulate x data.samples to divide it, so that no prompt is split"
            raise ValueError(f"{key}.batch: {what}")

    def matched(self, batch: Batch, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        with Background(self.run_context.device) as background:  # the reward beside the teacher's and critic's passes
            scored = background.submit(self._rewards, x.detach(), batch.prompts)
            loss_B, metrics = super().matched(batch, x)
            reward_B = scored.result()
        weight_B = self.weights_of(reward_B, batch.prompts).to(loss_B.device)
        self.weights.append(weight_B)
        mean = reward_B.mean().item()
        metrics |= {"reward": mean, f"reward_exit_{self.exit_step(batch)}": mean, "weight": weight_B.mean().item()}
        return weight_B * loss_B, metrics

    def _rewards(self, x: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        with self.run_context.section("reward"):
            return self.score(self.run_context.decoder().push(x).float(), prompts)

    def weights_of(self, reward_B: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(B,) float64 weights of samples with these rewards."""
        config = self.config
        if config.rule == "released":
            return released_weights(reward_B, config.beta)
        reward_B = centered(reward_B, prompts) if config.center == "prompt" else reward_B
        return reward_weights(reward_B, config.beta, config.clamp)

    def after_step(self, step: int) -> dict[str, float]:
        """Effective sample size and quantiles of the weights of all processes, in steps that updated the student."""
        if not self.weights:
            return {}
        weight_N = self.run_context.gather(torch.cat(self.weights)).cpu()
        self.weights.clear()
        points = torch.tensor(list(QUANTILES.values()), dtype=weight_N.dtype)
        quantiles = dict(zip(QUANTILES, weight_N.quantile(points).tolist(), strict=True))
        metrics = {f"weight/{name}": value for name, value in quantiles.items()}
        return metrics | {"weight/effective_samples": effective_sample_size(weight_N)}

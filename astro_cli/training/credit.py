"""A run's credit rule with what it remembers: it gives credit once per epoch, is checked, and saved with checkpoints.

Dimensions: P prompt, G sample of a prompt, N all samples of the epoch, F latent frame, h, w latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from astro_cli.advantages.base import Advantage, Scored
from astro_cli.config.errors import RunError
from astro_cli.core.credit import Credit
from astro_cli.recipe import advantage_class, objective_class, resolve_kind
from astro_cli.spec import StageSpec
from astro_cli.training.base_scores import BaseScores

STATE = "advantage."  # names in a checkpoint
FORMS = {"sample": "per sample", "map": "with a map of where it goes"}


def check_credit(key: str, table: dict[str, Any], stage: StageSpec) -> None:
    """Refuse a credit rule whose credit the stage's objective cannot use, or that needs a prior of every prompt where
    the prompts have no end; `key` is the stage's.

    Raises:
        ValueError: "key: what is wrong", naming both.
    """
    kind, rule = table["kind"], advantage_class(table)
    if rule.wants_base == "prompts" and stage.data.prompts is None and stage.data.captions is None:
        what = f"missing, {kind!r} measures a prior of each prompt: give a number of captions, or data.prompts"
        raise ValueError(f"{key}.data.captions: {what}")
    experience = stage.experience
    rewards = [name for name, weight in experience.rewards.items() if weight] if experience is not None else []
    if wrong := rule(resolve_kind("advantages", table, f"{key}.experience.advantage")).misnamed(rewards):
        raise ValueError(f"{key}.experience.advantage.{wrong}")
    gives, key = rule.gives, f"{key}.experience.advantage.kind"
    objective = resolve_kind("objectives", stage.objective, key)
    takes = objective_class(stage).takes(objective)
    if gives not in takes:
        taken = " or ".join(FORMS[form] for form in takes)
        raise ValueError(f"{key}: found {kind!r}, which gives credit {FORMS[gives]}; {stage.kind} takes credit {taken}")


class CreditRule:
    """Args: the recipe's `experience.advantage`, the weights of the rewards that are scored, samples per prompt."""

    def __init__(self, table: dict[str, Any], weights: Mapping[str, float], group: int) -> None:
        self.kind, self.weights, self.group = table["kind"], weights, group
        self.rule: Advantage = advantage_class(table)(resolve_kind("advantages", table, "advantage"))
        self.memory: dict[str, torch.Tensor] = {}

    @property
    def base_samples(self) -> int:
        """Clips of the base per prompt that it wants the scores of; 0: none."""
        return self.rule.base_clips(key for key, weight in self.weights.items() if weight)

    def scored(
        self,
        scores_N: Mapping[str, torch.Tensor],
        observed_N: Mapping[str, torch.Tensor],
        prompts: list[str],
        base: BaseScores | None = None,
    ) -> Scored:
        """Scores and observations of all processes' samples, prompts in order, a row per prompt."""
        scores = {key: scores_N[key].reshape(-1, self.group) for key in self.weights}
        observed = {name: value.unflatten(0, (-1, self.group)) for name, value in observed_N.items()}
        if base is None:
            return Scored(scores, self.weights, prompts, observed)
        device = next(iter(scores.values())).device
        prior = base.of(prompts) if self.rule.wants_base == "prompts" else None
        return Scored(
            scores, self.weights, prompts, observed, _moved(base.scores, device), prior and _moved(prior, device)
        )

    def credit(self, scored: Scored, grid: tuple[int, int, int]) -> Credit:
        """Credit of samples whose latents are (F, h, w).

        Raises:
            RunError: the rule gives another shape than it declares, or values that are not finite.
        """
        device = next(iter(scored.scores.values())).device
        self.memory = {name: value.to(device) for name, value in self.memory.items()}
        credit = self.rule.credit(scored, self.memory)
        samples = (len(scored.prompts), self.group)
        if problem := credit.problem(self.rule.gives, samples, grid):
            raise RunError("advantage", self.kind, problem, hint="the run can be resumed from its last checkpoint")
        return credit

    def state(self) -> dict[str, torch.Tensor]:
        return {STATE + name: value for name, value in self.memory.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.memory = {name.removeprefix(STATE): value for name, value in state.items() if name.startswith(STATE)}


def _moved(scores: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: value.to(device) for key, value in scores.items()}

"""Tells when an RL run has collapsed: the reward falls epoch after epoch, or clips stand still; and when a reward says
nothing.

The trainer handles non-finite losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from astro_cli.spec import CollapseSpec

CONSTANT_EPOCHS = 3  # in a row, from which a reward counts as broken


class CollapseWatch:
    """Watches one number per epoch each: mean reward, and mean motion of the clips (absolute difference of neighbouring
    frames).
    """

    def __init__(self, spec: CollapseSpec) -> None:
        self.spec = spec
        self.last_reward = float("nan")
        self.falls = 0
        self.first_motion = float("nan")

    def see(self, reward: float, motion: float) -> str:
        """Take an epoch's numbers; returns what is wrong, or nothing."""
        self.falls = self.falls + 1 if reward < self.last_reward else 0
        self.last_reward = reward
        if self.first_motion != self.first_motion:
            self.first_motion = motion
        if self.falls >= self.spec.falling:
            return f"the mean reward fell {self.falls} epochs in a row, to {reward:.4g}"
        if motion < self.spec.static * self.first_motion:
            return f"clips stand still: {motion / self.first_motion:.1%} of the first epoch's motion"
        return ""

    def state(self) -> torch.Tensor:
        return torch.tensor([self.last_reward, self.falls, self.first_motion], dtype=torch.float64)

    def load(self, state: torch.Tensor) -> None:
        self.last_reward, falls, self.first_motion = state.tolist()
        self.falls = int(falls)


class ConstantRewards:
    """Counts the epochs in a row in which a reward gave all clips the same score. Where an epoch has few prompts all of
    its clips may fail, so a reward that has varied before may be constant for less than `CONSTANT_EPOCHS`; one that
    never varied may not.
    """

    def __init__(self, rewards: Iterable[str]) -> None:
        self.epochs = dict.fromkeys(rewards, CONSTANT_EPOCHS - 1)

    def see(self, scores_N: Mapping[str, torch.Tensor]) -> list[str]:
        """Take an epoch's scores; the rewards that were constant in it."""
        constant = [key for key, value in scores_N.items() if bool((value == value[0]).all())]
        for key in scores_N:
            self.epochs[key] = self.epochs[key] + 1 if key in constant else 0
        return constant

    def is_broken(self, reward: str) -> bool:
        return self.epochs[reward] >= CONSTANT_EPOCHS

    def state(self) -> torch.Tensor:
        """The counts in the order of the rewards' names."""
        return torch.tensor([self.epochs[key] for key in sorted(self.epochs)])

    def load(self, state: torch.Tensor | None) -> None:
        """Take up `state`'s counts; None, of a run from before there were any: all rewards varied."""
        counts = [0] * len(self.epochs) if state is None else state.tolist()
        self.epochs = dict(zip(sorted(self.epochs), counts, strict=True))

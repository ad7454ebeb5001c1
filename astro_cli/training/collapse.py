"""Tells when an RL run has collapsed: the reward falls epoch after epoch, or clips stand still.

The trainer handles non-finite losses.
"""

from __future__ import annotations

import torch

from astro_cli.spec import CollapseSpec


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

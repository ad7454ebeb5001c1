"""Who rolls out and scores the clips that an RL step learns from: the training process itself, or others for it.

The contract, and `Inline`, the default. `execution.ray_executor` gives the work to a pool of Ray workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import RunContext
from astro_cli.rewards.base import Reward
from astro_cli.spec import ExperienceSpec
from astro_cli.training.clips import Clips, Observe, Roller
from astro_cli.training.scorers import load_scorers


class ClipMaker(Protocol):
    """Makes an epoch's scored clips, as `clips.Roller` does.

    Attributes:
        spec: the stage's experience, with the clips per prompt that are made here.
        frames: latent frames of a video.
        rewards: what scores them.
    """

    spec: ExperienceSpec
    frames: int
    rewards: list[Reward]

    def begin(self, shared: int) -> None:
        """Place an epoch's window of steps that draw noise, and take the policy's weights as they are now."""
        ...

    def sequences(
        self, prompts: list[str], seeds: list[int], text: torch.Tensor, starts: list[int] | None = None
    ) -> Clips: ...

    def candidates(
        self,
        prompts: list[str],
        seeds: list[int],
        text: torch.Tensor,
        prompt_seeds: list[int],
        start: int,
        starts: list[int] | None = None,
    ) -> Clips: ...


class Executor(Protocol):
    """Where rollouts and rewards are computed. What comes out is the same: each sample has its own random streams."""

    def scorers(
        self, keys: list[str], backbone: Backbone, device: torch.device, tables: Mapping[str, Mapping[str, Any]]
    ) -> list[Reward]:
        """Rewards by name."""
        ...

    def roller(
        self,
        spec: ExperienceSpec,
        run_context: RunContext,
        backbone: Backbone,
        rewards: list[Reward],
        observe: Observe | None,
        *,
        stage: str,
        record: bool = False,
        role: str = "old",
    ) -> ClipMaker:
        """What makes a stage's clips by a role."""
        ...


class Inline:
    """In this process: clips are scored on a thread beside the rollouts."""

    def scorers(
        self, keys: list[str], backbone: Backbone, device: torch.device, tables: Mapping[str, Mapping[str, Any]]
    ) -> list[Reward]:
        return load_scorers(keys, backbone, device, tables)

    def roller(
        self,
        spec: ExperienceSpec,
        run_context: RunContext,
        backbone: Backbone,
        rewards: list[Reward],
        observe: Observe | None,
        *,
        stage: str,
        record: bool = False,
        role: str = "old",
    ) -> ClipMaker:
        return Roller(spec, run_context, backbone, rewards, observe, record=record, role=role)


INLINE = Inline()


def watched_rewards(spec: ExperienceSpec, backbone: Backbone) -> list[str]:
    """Rewards of weight 0 that are scored for the log alone; not on Wan, where each costs a network."""
    return [key for key in spec.rewards if key not in spec.scored] if backbone.name == "shapes" else []

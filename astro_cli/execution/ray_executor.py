"""The executor of a training process whose rollouts and scores other workers of its pool compute, phase after phase:

    rollout -> all rewards at once -> update -> the new weights to the rollout worker

A phase begins when the one before it has ended, so they share one device (temporal multiplexing).
Source: TeleBoost (arXiv 2602.07595), section 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from astro_cli.execution.failures import explained
from astro_cli.execution.ray_workers import RolloutOrder, moved, network_state
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import RunContext
from astro_cli.rewards.base import Reward
from astro_cli.spec import BARE, ExperienceSpec
from astro_cli.training.clips import Clips, Observe


def _hear_nothing(text: str) -> None:
    return None


@dataclass(frozen=True)
class RewardHandle:
    """A reward worker: its name, the actor, and the rewards it computes in a stage."""

    name: str
    actor: Any
    stage: str
    keys: tuple[str, ...]


@dataclass
class RayCrew:
    """The workers of one member of the pool, as an `Executor`. `groups` are the names of reward workers that run side
    by side, group after group; workers that none names come last, together."""

    rollout: Any
    rollout_name: str
    rewards: Sequence[RewardHandle]
    groups: Sequence[Sequence[str]] = ()
    warn: Any = _hear_nothing
    version: int = field(default=0, init=False)

    def scorers(
        self, keys: list[str], backbone: Backbone, device: torch.device, tables: Mapping[str, Mapping[str, Any]]
    ) -> list[Reward]:
        frames = dict[str, int]()
        for handle in self.rewards:
            if frames.keys().isdisjoint(handle.keys) and not set(keys).isdisjoint(handle.keys):
                frames |= self.result(handle.actor.frames_needed.remote(), handle.name)
        return [RemoteReward(key, frames[key], self) for key in keys]

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
    ) -> RemoteRoller:
        return RemoteRoller(self, spec, run_context, rewards, stage, role, observe=observe is not None)

    def result(self, reference: Any, worker: str) -> Any:
        """What a worker returns.

        Raises:
            AstroError: the user's error that it raised, or its end, by its name.
        """
        try:
            return ray.get(reference)
        except RayError as error:
            raise explained(error, worker) from error

    def broadcast(self, run_context: RunContext) -> tuple[Any, int]:
        """Hand out the policy's weights as they are now: where they are kept, and their number."""
        self.version += 1
        return ray.put(network_state(run_context)), self.version

    def score(self, stage: str | None, keys: Sequence[str], parts: Any, prompts: list[str]) -> dict[str, torch.Tensor]:
        """Scores (B,) by reward; all workers of a group at once."""
        scores = dict[str, torch.Tensor]()
        for group in self._in_groups(stage, keys):
            pending = [(handle, handle.actor.score.remote(parts, prompts)) for handle in group]
            for handle, reference in pending:
                values, restarted = self.result(reference, handle.name)
                scores |= values
                if restarted:
                    self.warn(f"worker {handle.name} was killed or crashed, and was started again")
        return {key: scores[key] for key in keys}

    def _in_groups(self, stage: str | None, keys: Sequence[str]) -> list[list[RewardHandle]]:
        """The workers that give these rewards, in the order of the plan."""
        chosen, left = list[RewardHandle](), set(keys)
        for handle in self.rewards:
            if not left.isdisjoint(handle.keys) and stage in (None, handle.stage):
                chosen.append(handle)
                left -= set(handle.keys)
        planned = {name: place for place, names in enumerate(self.groups) for name in names}
        groups: dict[int, list[RewardHandle]] = {}
        for handle in chosen:
            groups.setdefault(planned.get("+".join(handle.keys), len(planned)), []).append(handle)
        return [groups[place] for place in sorted(groups)]


@dataclass
class RemoteReward:
    """A `Reward` that a worker computes."""

    key: str
    num_frames_min: int
    crew: RayCrew

    def score(self, frames_BTCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        parts = ray.put([frames_BTCHW.cpu()])
        return self.crew.score(None, [self.key], parts, prompts)[self.key].to(frames_BTCHW.device)


class RemoteRoller:
    """A `ClipMaker` whose clips the pool makes and scores."""

    def __init__(
        self,
        crew: RayCrew,
        spec: ExperienceSpec,
        run_context: RunContext,
        rewards: list[Reward],
        stage: str,
        role: str,
        *,
        observe: bool,
    ) -> None:
        self.crew, self.spec, self.run_context, self.rewards = crew, spec, run_context, rewards
        self.stage, self.role, self.observe = stage, role, observe
        self.frames = spec.frames or run_context.frames
        self.shared = 0
        self.weights: tuple[Any, int] = (None, 0)

    def begin(self, shared: int) -> None:
        self.shared = shared
        if self.role != BARE:  # the base has no trained weights
            self.weights = self.crew.broadcast(self.run_context)

    def sequences(
        self, prompts: list[str], seeds: list[int], text: torch.Tensor, starts: list[int] | None = None
    ) -> Clips:
        return self._made(prompts, seeds, text, [], None, starts)

    def candidates(
        self,
        prompts: list[str],
        seeds: list[int],
        text: torch.Tensor,
        prompt_seeds: list[int],
        start: int,
        starts: list[int] | None = None,
    ) -> Clips:
        return self._made(prompts, seeds, text, prompt_seeds, start, starts)

    def _made(
        self,
        prompts: list[str],
        seeds: list[int],
        text: torch.Tensor,
        owners: list[int],
        start: int | None,
        starts: list[int] | None,
    ) -> Clips:
        crew, section = self.crew, self.run_context.section
        what = (self.stage, self.role, self.spec.group, self.shared, self.observe)
        order = RolloutOrder(*what, prompts, seeds, text.cpu(), starts, owners, start)
        with section("rollout"):
            made, parts = crew.rollout.roll_out.options(num_returns=2).remote(*self.weights, order)
            clips, restarted = crew.result(made, crew.rollout_name)
        if restarted:
            crew.warn(f"worker {crew.rollout_name} was killed or crashed, and was started again")
        with section("reward"):
            clips.scores = crew.score(self.stage, [reward.key for reward in self.rewards], parts, prompts)
        return moved(replace(clips), self.run_context.device)

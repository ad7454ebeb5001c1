"""The workers of a pool: actors that roll out, score, and train. The three take turns; each computes what the training
process would.

Dimensions: B clip, M text token, D width of a text state, F latent frame, C channel, T pixel frame.
"""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from astro_cli.config.errors import RunError
from astro_cli.core import threads
from astro_cli.execution.reward_units import rewards_alone
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import RunContext
from astro_cli.recipe import objective_class
from astro_cli.rewards.base import Reward, check_scores
from astro_cli.spec import Recipe
from astro_cli.training.build import build, make_accelerator, pick_device
from astro_cli.training.clips import Clips, Roller
from astro_cli.training.credit import CreditRule
from astro_cli.training.run import prepare

EVENT_SECONDS = 0.5  # for which `events` waits


@dataclass(frozen=True)
class WorkerPlace:
    """Where a worker computes: the folder that relative paths of the recipe start from, and its number of threads."""

    folder: str
    threads: int

    def enter(self) -> None:
        """Raises: RunError where this machine lacks the folder."""
        try:
            os.chdir(self.folder)
        except OSError as error:
            what = f"{error.strerror} on {socket.gethostname()}: every machine of the pool must see the same folders"
            raise RunError(self.folder, "", what) from error
        threads.ask(self.threads)
        threads.use(self.threads)


@dataclass(frozen=True)
class RolloutOrder:
    """Clips to make: of which stage, by which role, from which seeds. `start` is the first frame of candidate clips,
    None for whole videos; `owners` are the seeds of their prompts."""

    stage: str
    role: str
    group: int
    shared: int
    observe: bool
    prompts: list[str]
    seeds: list[int]
    text_BMD: torch.Tensor
    starts: list[int] | None
    owners: list[int]
    start: int | None


def network_state(run_context: RunContext) -> dict[str, dict[str, torch.Tensor]]:
    """By role, what training may have changed in it: the adapters if there are any, else all. Copied to the CPU."""
    states = {}
    for role, module in run_context.roles.modules.items():
        state = module.state_dict()
        adapters = {key: value for key, value in state.items() if ".lora_" in key}
        if adapters or any(parameter.requires_grad for parameter in module.parameters()):
            states[role] = {key: value.detach().cpu().clone() for key, value in (adapters or state).items()}
    return states


class PoolWorker:
    """A worker that loads what it needs with its first work, and again after it was killed and started anew."""

    def __init__(self, recipe: Recipe, place: WorkerPlace) -> None:
        self.recipe, self.place = recipe, place
        self._restarted = bool(ray.get_runtime_context().was_current_actor_reconstructed)

    def restarted(self) -> bool:
        """Whether this worker takes the place of a killed one; says it once."""
        before, self._restarted = self._restarted, False
        return before

    def pid(self) -> int:
        return os.getpid()

    def free(self) -> None:
        """Give back what the phase used beside the weights; other workers of the device are next."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class RolloutWorker(PoolWorker):
    """Makes clips by the policy, whose weights come with every order."""

    def __init__(self, recipe: Recipe, place: WorkerPlace) -> None:
        super().__init__(recipe, place)
        self.networks: tuple[RunContext, Backbone] | None = None
        self.version = -1  # of the weights in place

    def _ready(self) -> tuple[RunContext, Backbone]:
        if self.networks is None:
            self.place.enter()
            run_context, backbone = build(self.recipe, pick_device(self.recipe.runtime.device))
            accelerator = make_accelerator(self.recipe)
            run_context.autocast = lambda: accelerator.autocast()
            self.networks = run_context, backbone
        return self.networks

    def roll_out(
        self, weights: Mapping[str, Mapping[str, torch.Tensor]] | None, version: int, order: RolloutOrder
    ) -> tuple[tuple[Clips, bool], list[torch.Tensor]]:
        """The clips, without scores, and whether this worker was started anew; their frames (B, T, 3, H, W), in the
        parts in which they were made.
        """
        run_context, backbone = self._ready()
        if weights is not None and version != self.version:
            for role, state in weights.items():
                run_context.roles.modules[role].load_state_dict(state, strict=False)
            self.version = version
        stage, parts = self.recipe.stages[order.stage], list[torch.Tensor]()
        assert stage.experience is not None, "checked with the recipe"
        spec = stage.experience.model_copy(update={"group": order.group})
        rule = CreditRule(spec.advantage, spec.scored, spec.group).rule

        def seen(latents: torch.Tensor, frames: torch.Tensor, backbone: Backbone) -> dict[str, torch.Tensor]:
            parts.append(frames.cpu())
            return rule.observe(latents, frames, backbone) if order.observe else {}

        record = order.observe and objective_class(stage).wants_trajectory
        roller = Roller(spec, run_context, backbone, [], seen, record=record, role=order.role)
        roller.begin(order.shared)
        text = order.text_BMD.to(run_context.device)
        if order.start is None:
            clips = roller.sequences(order.prompts, order.seeds, text, order.starts)
        else:
            clips = roller.candidates(order.prompts, order.seeds, text, order.owners, order.start, order.starts)
        self.free()
        return (moved(clips, torch.device("cpu")), self.restarted()), parts


class RewardWorker(PoolWorker):
    """Scores clips by some rewards, which share their networks."""

    def __init__(self, recipe: Recipe, place: WorkerPlace, stage: str, keys: tuple[str, ...]) -> None:
        super().__init__(recipe, place)
        self.stage, self.keys, self.rewards = stage, keys, list[Reward]()

    def _ready(self) -> list[Reward]:
        if not self.rewards:
            self.place.enter()
            experience, device = self.recipe.stages[self.stage].experience, pick_device(self.recipe.runtime.device)
            assert experience is not None, "checked with the recipe"
            self.rewards = rewards_alone(self.recipe, list(self.keys), device, experience.scorers)
        return self.rewards

    def frames_needed(self) -> dict[str, int]:
        """By reward, the frames of the shortest clip that it scores."""
        return {reward.key: reward.num_frames_min for reward in self._ready()}

    def score(self, parts: list[torch.Tensor], prompts: list[str]) -> tuple[dict[str, torch.Tensor], bool]:
        """Scores (B,) by reward of clips in parts (b, T, 3, H, W), and whether this worker was started anew."""
        device, scores, start = pick_device(self.recipe.runtime.device), dict[str, list[torch.Tensor]](), 0
        with torch.no_grad():
            for frames in parts:
                own = prompts[start : start + len(frames)]
                start += len(frames)
                for reward in self._ready():
                    score_B = check_scores(reward.key, reward.score(frames.to(device), own).float(), len(own))
                    scores.setdefault(reward.key, []).append(score_B.cpu())
        self.free()
        return {key: torch.cat(values) for key, values in scores.items()}, self.restarted()


class UpdateWorker:
    """A training process: rank `rank` of `count`. Its rollouts and scores are other workers'."""

    def __init__(self, recipe: Recipe, place: WorkerPlace, rank: int, count: int) -> None:
        self.recipe, self.place, self.rank, self.count = recipe, place, rank, count
        self.queue = queue.SimpleQueue[tuple[str, tuple[Any, ...]]]()

    def pid(self) -> int:
        return os.getpid()

    def meeting_point(self) -> tuple[str, int]:
        """This machine's address and a free port, at which the training processes find each other."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def train(self, out: str, given: str, resume: bool, meeting: tuple[str, int], crew: Any) -> None:
        """Train the recipe in its folder.

        Raises:
            AstroError: as `training.run` does.
        """
        self.place.enter()
        if self.count > 1:
            self._join(*meeting)
        crew.warn = self.warn if self.rank == 0 else _hear_nothing
        prepared = prepare(self.recipe, Path(out))
        prepared.train(given, resume=resume, progress=self, say=self.say, executor=crew)

    def _join(self, host: str, port: int) -> None:
        """Become a process of a group, as `torch.distributed.run` would make it."""
        local = str(self.rank) if pick_device(self.recipe.runtime.device).type == "cpu" else "0"
        os.environ |= {"RANK": str(self.rank), "WORLD_SIZE": str(self.count), "LOCAL_RANK": local}
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
        if host == "127.0.0.1":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if os.uname().sysname == "Darwin" else "lo")

    def events(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What a watcher is to hear, in order: method and arguments. Waits for some; empty after a while."""
        heard = list[tuple[str, tuple[Any, ...]]]()
        try:
            heard.append(self.queue.get(timeout=EVENT_SECONDS))
            while True:
                heard.append(self.queue.get_nowait())
        except queue.Empty:
            return heard

    def _tell(self, method: str, *arguments: Any) -> None:
        if self.rank == 0:
            self.queue.put((method, arguments))

    # The training's `Watcher`.
    def __enter__(self) -> UpdateWorker:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def stage(self, name: str, start: int, steps: int) -> None:
        self._tell("stage", name, start, steps)

    def step(self, row: dict[str, Any]) -> None:
        self._tell("step", row)

    def work(self, what: str, done: int, total: int) -> None:
        self._tell("work", what, done, total)

    def warn(self, text: str) -> None:
        self._tell("warn", text)

    def say(self, text: str) -> None:
        self._tell("say", text)


def _hear_nothing(text: str) -> None:
    return None


def moved(clips: Clips, device: torch.device) -> Clips:
    """The clips on a device."""
    return replace(
        clips,
        latents=clips.latents.to(device),
        scores={key: value.to(device) for key, value in clips.scores.items()},
        motion=clips.motion.to(device),
        history=None if clips.history is None else clips.history.to(device),
        observed={name: value.to(device) for name, value in clips.observed.items()},
        trajectory=None if clips.trajectory is None else clips.trajectory.to(device),
    )

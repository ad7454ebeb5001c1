"""A pool of Ray workers: started on this machine, or joined on a cluster; ended with the run.

A member of the pool is a core, or a GPU where the run uses CUDA. It hosts a training process, its rollout worker and
its reward workers, each with a share of the member's resources, for they take turns.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from astro_cli.config.errors import RunError
from astro_cli.core import threads
from astro_cli.execution.options import RayOptions, check_answers, unanswered
from astro_cli.execution.ray_executor import RayCrew, RewardHandle
from astro_cli.execution.ray_workers import RewardWorker, RolloutWorker, UpdateWorker, WorkerPlace
from astro_cli.execution.reward_units import reward_units
from astro_cli.spec import Recipe
from astro_cli.training.build import pick_device

LOOPBACK = "127.0.0.1"
STARTS = 3  # tries to start a cluster
RESTARTS = 3  # of a rollout or reward worker
SCHEDULE_SECONDS = 60.0  # in which a cluster must give the pool its place
FINEST = 1e-4  # share of a core or GPU that Ray counts


@contextmanager
def session(options: RayOptions) -> Iterator[None]:
    """Connected to a cluster, or to one of this machine's own: loopback only, without a dashboard, which ends with the
    block, and with this process if that is killed.

    Raises:
        AstroError: the cluster does not answer.
        RunError: Ray cannot be started here.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if options.address is not None:
        check_answers(options.address)
        try:
            ray.init(address=options.address, **quiet)
        except Exception as error:  # Ray raises no class of its own here; it may have ended since it answered
            raise unanswered(options.address, f"refused: {_reason(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()
        return
    short = "/tmp" if Path("/tmp").is_dir() else None  # the paths of sockets must be
    folder = tempfile.mkdtemp(prefix="astro-ray-", dir=short)
    try:
        _start(options.workers, folder, quiet)
        if (address := ray.util.get_node_ip_address()) != LOOPBACK:
            raise RunError("Ray", "", f"listens at {address}, expected {LOOPBACK}: this version of Ray is not known")
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(workers: int, folder: str, quiet: dict[str, Any]) -> None:
    """A cluster of this machine's own. Ray gives its parts 30 seconds to start, too few on a busy machine: try again.

    Raises:
        RunError: it does not start.
    """
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address=LOOPBACK, _temp_dir=folder, **quiet)
            return
        except Exception as error:  # Ray raises no class of its own here
            ray.shutdown()
            if attempt == STARTS:
                raise RunError("Ray", "", f"cannot be started here: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


class Pool:
    """The workers of every member: `updates` train, `crews` are their executors."""

    def __init__(
        self,
        recipe: Recipe,
        options: RayOptions,
        groups: Sequence[Sequence[str]] = (),
        environments: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Args: groups of reward workers to run side by side, and their environment variables, by name ("mq+ta")."""
        self.recipe, units = recipe, reward_units(recipe)
        cuda = pick_device(recipe.runtime.device).type == "cuda"
        resources = {"CPU": 1.0, **({"GPU": 1.0} if cuda else {})}
        self.group = placement_group([resources] * options.workers, strategy="PACK")
        self._placed(options)
        share = int(1 / (2 + len(units)) / FINEST) * FINEST
        self.share: dict[str, Any] = {"num_cpus": share, "num_gpus": share if cuda else 0}
        video = recipe.video
        number = threads.choose(recipe.model.layer_flops(video.block, video.height, video.width)).number
        self.place = WorkerPlace(os.getcwd(), max(1, number // options.workers))
        self.updates, self.crews = list[Any](), list[RayCrew]()
        for member in range(options.workers):
            self._add(member, options.workers, units, groups, environments or {})

    def _placed(self, options: RayOptions) -> None:
        try:
            ray.get(self.group.ready(), timeout=SCHEDULE_SECONDS)
        except GetTimeoutError as error:
            free = {key: value for key, value in ray.available_resources().items() if key in ("CPU", "GPU")}
            what = f"found free {free}, expected {options.workers} members with a core (and a GPU) each"
            raise RunError("--ray-workers", str(options.workers), what) from error

    def _add(
        self,
        member: int,
        count: int,
        units: Sequence[tuple[str, tuple[str, ...]]],
        groups: Sequence[Sequence[str]],
        environments: Mapping[str, Mapping[str, str]],
    ) -> None:
        where = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=member)
        again = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS}

        def start(kind: type, *arguments: Any, **more: Any) -> Any:
            return ray.remote(scheduling_strategy=where, **self.share, **more)(kind).remote(*arguments)

        recipe, place = self.recipe, self.place
        handles = []
        for stage, keys in units:
            name = "+".join(keys)
            extra = {"runtime_env": {"env_vars": dict(environments[name])}} if name in environments else {}
            actor = start(RewardWorker, recipe, place, stage, keys, **again, **extra)
            handles.append(RewardHandle(f"reward-{name}-{member}", actor, stage, keys))
        rollout = start(RolloutWorker, recipe, place, **again)
        self.crews.append(RayCrew(rollout, f"rollout-{member}", handles, groups))
        update = start(UpdateWorker, recipe, place, member, count, concurrency_groups={"events": 1})
        self.updates.append(update)

    def pids(self) -> dict[str, int]:
        """Process ids of all workers, by name; waits until they run."""
        actors = {f"update-{place}": actor for place, actor in enumerate(self.updates)}
        for crew in self.crews:
            actors[crew.rollout_name] = crew.rollout
            actors |= {handle.name: handle.actor for handle in crew.rewards}
        return dict(zip(actors, ray.get([actor.pid.remote() for actor in actors.values()]), strict=True))

"""One training run on a pool of Ray workers: this process starts them, shows what they say, and ends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from astro_cli.config.errors import AstroError
from astro_cli.execution import mps, reward_plans
from astro_cli.execution.failures import explained, is_own_end
from astro_cli.execution.options import RayOptions
from astro_cli.execution.ray_pool import Pool, session
from astro_cli.spec import Recipe
from astro_cli.training import sharded
from astro_cli.training.build import wanted_roles
from astro_cli.training.needs import check_needs
from astro_cli.training.trainer import Watcher

WAKE_SECONDS = 2.0  # after a first failure, in which the worker that caused it may still be heard


def train(
    recipe: Recipe,
    out: Path,
    given: str,
    options: RayOptions,
    *,
    resume: bool,
    progress: AbstractContextManager[Watcher],
    say: Callable[[str], None],
) -> None:
    """Train in the folder, as `training.run` does.

    Raises:
        AstroError: anything the user can cause, and the end of a worker that could not be started again, by its name.
    """
    if sharded.is_wanted():
        what = "found accelerate's --use_fsdp, expected --executor inline: workers of a pool hold whole networks"
        raise AstroError("--executor", "ray", what, hint=f"unset {sharded.FLAG}")
    check_needs(recipe, wanted_roles(recipe))  # before Ray's seconds
    with session(options):
        pool = Pool(recipe, options, *_planned(recipe, options, say))
        meeting = ("", 0)
        if len(pool.updates) > 1:
            meeting = _result(pool.updates[0].meeting_point.remote(), "update-0")
        runs = [
            update.train.remote(str(out.absolute()), given, resume, meeting, crew)
            for update, crew in zip(pool.updates, pool.crews, strict=True)
        ]
        with progress as watcher:
            _follow(pool.updates[0], runs, watcher, say)


def _planned(
    recipe: Recipe, options: RayOptions, say: Callable[[str], None]
) -> tuple[list[list[str]], dict[str, dict[str, str]]]:
    """Groups of reward workers and their environments, by the plan that was measured on this machine; without one, or
    on a cluster, all run at once.
    """
    plan = reward_plans.kept(recipe) if options.address is None else None
    if plan is None:
        return [], {}
    groups, environments = [], {}
    for group in plan["groups"]:
        groups.append(list(group["workers"]))
        if len(group["workers"]) > 1 and reward_plans.device_of(recipe) == "cuda" and mps.runs():
            environments |= {name: mps.environment(worker["quota"]) for name, worker in group["workers"].items()}
    say(f"rewards as planned: {', then '.join(' beside '.join(names) for names in groups)}")
    return groups, environments


def _follow(first: Any, runs: Sequence[Any], watcher: Watcher, say: Callable[[str], None]) -> None:
    """Show what the first training process says until all have ended, or one has failed."""
    names, left = {run: f"update-{place}" for place, run in enumerate(runs)}, list(runs)
    while left:
        try:
            _replay(ray.get(first.events.options(concurrency_group="events").remote()), watcher, say)
        except RayError as error:
            raise _cause(names, runs) or explained(error, "update-0") from error
        done, _ = ray.wait(left, num_returns=1, timeout=0)
        for run in done:
            left.remove(run)
            try:
                ray.get(run)
            except RayError as error:
                raise _cause(names, runs) or explained(error, names[run]) from error
    _replay(ray.get(first.events.options(concurrency_group="events").remote()), watcher, say)


def _replay(events: list[tuple[str, tuple[Any, ...]]], watcher: Watcher, say: Callable[[str], None]) -> None:
    for method, arguments in events:
        if method == "say":
            say(*arguments)
        else:
            getattr(watcher, method)(*arguments)


def _cause(names: dict[Any, str], runs: Sequence[Any]) -> BaseException | None:
    """What ended the run: a worker's own end before the errors of those that waited for it."""
    time.sleep(WAKE_SECONDS if len(runs) > 1 else 0.0)
    failures = list[tuple[bool, bool, BaseException]]()
    for run in ray.wait(list(runs), num_returns=len(runs), timeout=WAKE_SECONDS)[0]:
        try:
            ray.get(run)
        except RayError as error:
            shown = explained(error, names[run])
            failures.append((is_own_end(error), shown is not error, shown))
    return max(failures, key=lambda failure: failure[:2])[2] if failures else None


def _result(reference: Any, worker: str) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        raise explained(error, worker) from error

"""Plans of a recipe's reward phase: profiles are measured, groups and quotas chosen, and the plan is timed against one
worker after the other. Plans are kept as JSON in `astro/reward_plans/` below XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from astro_cli.config.durable import write_json
from astro_cli.config.errors import AstroError, RecipeError
from astro_cli.config.files import Reader
from astro_cli.core import makespan, threads
from astro_cli.core.makespan import RewardPlan
from astro_cli.execution import mps
from astro_cli.execution.reward_process import CpuShare, RewardProcess, TimedWork
from astro_cli.execution.reward_units import reward_units
from astro_cli.models import hashes
from astro_cli.spec import Recipe
from astro_cli.training.build import pick_device

Profiles = Mapping[str, Mapping[float, float]]  # seconds by quota, by worker


def works(recipe: Recipe, clips: int | None = None) -> list[TimedWork]:
    """The reward workers of a recipe's RL stage, with as many clips as an epoch has, or `clips`.

    Raises:
        RecipeError: no stage learns from rewards.
    """
    units = reward_units(recipe)
    if not units:
        raise RecipeError(recipe.name, "", "no stage learns from rewards", hint="the recipes of `astro rl` do")
    stage = units[0][0]
    experience = recipe.stages[stage].experience
    assert experience is not None, "a unit's stage has some"
    count = clips or experience.prompts * experience.group
    scored = set(experience.scored)
    return [TimedWork(recipe, stage, keys, count) for name, keys in units if name == stage and scored & set(keys)]


def share_of(recipe: Recipe, quota: float) -> CpuShare:
    """What a quota is on this machine for a recipe's rewards; on a GPU the process's percentage says it."""
    if device_of(recipe) == "cuda":
        return CpuShare(1, 1.0)
    video = recipe.video
    most = threads.choose(recipe.model.layer_flops(video.block, video.height, video.width)).number
    return CpuShare.of(quota, threads.cores(), most)


def device_of(recipe: Recipe) -> str:
    return pick_device(recipe.runtime.device).type


def check_device(recipe: Recipe) -> None:
    """Raises: RecipeError where the device has no quotas: a GPU without MPS."""
    if device_of(recipe) == "cuda" and not mps.runs():
        what = "found a GPU without MPS, which divides it: quotas cannot be measured"
        raise RecipeError("runtime", "device", what, hint=f"`{mps.START}` starts it, as root; or runtime.device=cpu")


def measure(
    works: Sequence[TimedWork], quotas: Sequence[float], repeats: int, progress: Callable[[str, int, int], None]
) -> dict[str, dict[float, float]]:
    """Median seconds of each worker under each quota, alone on the machine.

    Raises:
        AstroError: a worker's own error, or its end.
    """
    cuda = device_of(works[0].recipe) == "cuda"
    profiles, done, total = dict[str, dict[float, float]](), 0, len(works) * len(quotas)
    for work in works:
        profiles[work.name] = {}
        for batch in [[quota] for quota in quotas] if cuda else [list(quotas)]:
            with RewardProcess(work, batch[0]) as process:
                process.ready()
                process.time(share_of(work.recipe, 1.0))  # warm
                for quota in batch:
                    share = share_of(work.recipe, quota)
                    profiles[work.name][quota] = statistics.median(process.time(share) for _ in range(repeats))
                    done += 1
                    progress("reward profiles", done, total)
    return profiles


def run_plan(plan: RewardPlan, works: Sequence[TimedWork], repeats: int) -> dict[str, Any]:
    """The reward phase timed both ways, serial and as planned by turns: seconds, medians and idle share of the cores.

    Workers of a CPU have the threads of their quota and are not stopped: the system shares the cores.
    """
    by_name, cores = {work.name: work for work in works}, threads.cores()
    serial = [{name: 1.0} for group in plan.groups for name in group.quotas]
    planned = [dict(group.quotas) for group in plan.groups]
    seconds: dict[str, list[float]] = {"serial": [], "planned": []}
    busy: dict[str, list[float]] = {"serial": [], "planned": []}
    quotas = {name: quota for group in planned for name, quota in group.items()}
    cuda = device_of(works[0].recipe) == "cuda"  # there a process's share is set when it starts
    with ExitStack() as stack:
        whole = {name: stack.enter_context(RewardProcess(work)) for name, work in by_name.items()}
        shared = whole
        if cuda:
            shared = {name: stack.enter_context(RewardProcess(by_name[name], quotas[name])) for name in by_name}
        for process in {*whole.values(), *shared.values()}:
            process.ready()
            process.time(share_of(process.work.recipe, 1.0))  # warm
        for _ in range(repeats):
            for way, groups, processes in (("serial", serial, whole), ("planned", planned, shared)):
                used = sum(process.cpu_seconds() for process in processes.values())
                seconds[way].append(_phase(groups, processes))
                used = sum(process.cpu_seconds() for process in processes.values()) - used
                busy[way].append(used / cores / seconds[way][-1])
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    idle = {way: max(0.0, 1 - statistics.median(values)) for way, values in busy.items()}
    return {"seconds": seconds, "median": medians, "idle_share": idle, "cores": cores}


def _phase(groups: Sequence[Mapping[str, float]], processes: Mapping[str, RewardProcess]) -> float:
    """Seconds of groups in turn, the workers of each side by side."""
    began = time.perf_counter()
    for group in groups:
        for name, quota in group.items():
            processes[name].begin(share_of(processes[name].work.recipe, quota))
        for name in group:
            processes[name].seconds()
    return time.perf_counter() - began


def described(plan: RewardPlan, profiles: Profiles, device: str) -> dict[str, Any]:
    """A plan as JSON. Percentages of MPS are in it only where a GPU and its daemon are here."""
    groups = []
    for group in plan.groups:
        shares = mps.percentages(group.quotas) if device == "cuda" and mps.runs() else {}
        workers = {}
        for name, quota in group.quotas.items():
            workers[name] = {"quota": quota, **({"mps_percentage": shares[name]} if shares else {})}
        groups.append({"workers": workers, "seconds": group.seconds})
    fits = {name: makespan.fit(profile) for name, profile in profiles.items()}
    return {
        "answer": "serial" if plan.is_serial else "planned",
        "device": device,
        "groups": groups,
        "seconds": plan.seconds,
        "serial_seconds": plan.serial,
        "fits": {name: {"a": scaling.a, "b": scaling.b} for name, scaling in fits.items()},
        "profiles": {name: _as_text(profile) for name, profile in profiles.items()},
    }


def _as_text(profile: Mapping[float, float]) -> dict[str, float]:
    return {f"{quota:g}": seconds for quota, seconds in profile.items()}


def read_profiles(path: Path) -> dict[str, dict[float, float]]:
    """Profiles from JSON: {"worker": {"quota": seconds, ...}, ...}.

    Raises:
        RecipeError: another form, fewer than three quotas, or a quota outside (0, 1].
    """
    reader, profiles = Reader(RecipeError, hint='{"vq": {"0.25": 4.1, "0.5": 2.2, "1": 1.3}}'), {}
    for name, given in reader.table(path).items():
        if not isinstance(given, dict):
            reader.fail(path, "expected seconds by quota", key=name)
        try:
            profiles[name] = {float(quota): float(seconds) for quota, seconds in given.items()}
            makespan.check_profile(profiles[name])
        except (TypeError, ValueError) as error:
            reader.fail(path, str(error), key=name)
    if not profiles:
        reader.fail(path, "no worker")
    return profiles


def place(recipe: Recipe) -> Path:
    """Where a recipe's plan for this machine is kept: by its rewards, their clips, and the device."""
    first = works(recipe)[0]
    experience = recipe.stages[first.stage].experience
    assert experience is not None, "a work's stage has some"
    facts = {
        "recipe": recipe.model_dump(mode="json", include={"backbone", "video", "base", "runtime"}),
        "experience": experience.model_dump(mode="json", include={"rewards", "primary", "scorers", "clip", "frames"}),
        "clips": first.clips,
        "device": device_of(recipe),
        "cores": threads.cores(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return hashes.cache_file().parent / "reward_plans" / f"{key}.json"


def keep(recipe: Recipe, plan: dict[str, Any]) -> None:
    """Write a plan for `astro rl`; a cache that cannot be written is none."""
    with contextlib.suppress(OSError):
        write_json(place(recipe), plan)


def kept(recipe: Recipe) -> dict[str, Any] | None:
    """The plan that was measured for this recipe on this machine; None where there is none that can be used."""
    try:
        plan = Reader(AstroError).table(place(recipe))
        for group in plan["groups"]:
            quotas = [float(worker["quota"]) for worker in group["workers"].values()]
            if not quotas or sum(quotas) > 1 + 1e-6 or min(quotas) <= 0:
                return None
            float(group["seconds"])
        return plan if plan["answer"] in ("serial", "planned") and float(plan["serial_seconds"]) > 0 else None
    except (AstroError, LookupError, TypeError, ValueError, AttributeError):
        return None

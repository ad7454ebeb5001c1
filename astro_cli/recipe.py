"""Reading recipes: TOML -> a checked `Recipe`, in two phases.

`read_recipe` checks what the recipe says by itself and imports no torch. `load_recipe` also asks the methods that its
stages name: a stage's objective and advantage are checked against the `Config` class of the module their `kind` names, and
the objective and its source check what is theirs, so a new method needs no change here.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from astro_cli.config import toml
from astro_cli.config.base import Config
from astro_cli.config.errors import RecipeError, did_you_mean
from astro_cli.config.problems import fields_at
from astro_cli.rewards.base import KEYS as REWARDS
from astro_cli.spec import (
    ADAPTER_ROLES,
    NETWORK_ROLES,
    TIMESTEPS,
    BaseSpec,
    CacheConfig,
    CollapseSpec,
    Command,
    DataSpec,
    EmaSpec,
    ExperienceSpec,
    LoraSpec,
    OptimSpec,
    Recipe,
    RoleModel,
    RoleSpec,
    RuntimeSpec,
    SamplerSpec,
    StageSpec,
    TeacherSampler,
    VideoSpec,
)

__all__ = [
    "ADAPTER_ROLES", "NETWORK_ROLES", "TIMESTEPS", "BaseSpec", "CacheConfig", "CollapseSpec", "Command", "DataSpec", "EmaSpec",
    "ExperienceSpec", "LoraSpec", "OptimSpec", "Recipe", "RoleModel", "RoleSpec", "RuntimeSpec", "SamplerSpec", "StageSpec",
    "TeacherSampler", "VideoSpec", "check_methods", "kinds", "load_recipe", "objective_class", "read_recipe", "resolve_kind",
]  # fmt: skip

C = TypeVar("C", bound=Config)
EXPECTED = {"model_type": "a table", "dict_type": "a table", "tuple_type": "an array", "int_type": "an integer", "float_type": "a number",
            "string_type": "a string", "bool_type": "true or false", "int_from_float": "an integer", "too_short": "at least one value"}  # fmt: skip


def kinds(package: str) -> list[str]:
    """Keys available in `objectives` or `advantages`: the modules' stems."""
    module = importlib.import_module(f"astro_cli.{package}")
    return sorted(info.name for info in pkgutil.iter_modules(module.__path__) if info.name != "base")


def resolve_kind(package: str, table: dict[str, Any], key: str) -> Config:
    """Check a table `{kind = ..., ...}` against the `Config` of the module its kind names.

    Raises:
        ValueError: "key: what is wrong", for unknown kinds, keys and values.
    """
    _check_kind(package, table, key)
    config_class = importlib.import_module(f"astro_cli.{package}.{table['kind']}").Config
    try:
        return _validate(config_class, {name: value for name, value in table.items() if name != "kind"})
    except ValidationError as error:
        inner, what, hint = _first_problem(error, config_class)
        raise ValueError(f"{key}.{inner}: {what}" + (f", {hint}" if hint else "")) from error


def objective_class(stage: StageSpec) -> Any:
    """The `Objective` class of a stage's kind."""
    return importlib.import_module(f"astro_cli.objectives.{stage.kind}").Objective


def load_recipe(name: str, overrides: list[str] | None = None, command: str | None = None) -> Recipe:
    """Read, merge and check a recipe, with the methods that it names.

    Args:
        command: the command it is for; a recipe of another command is refused.

    Raises:
        RecipeError: with the file that set the offending key, what was found and what is allowed.
    """
    return _load(name, overrides, command, (_check_names, check_methods))


def read_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """Read, merge and check a recipe without importing a method: the keys inside of objectives and advantages are taken as they come.

    Raises:
        RecipeError: as `load_recipe`.
    """
    return _load(name, overrides, None, (_check_names,))


def _load(name: str, overrides: list[str] | None, command: str | None, checks: tuple[Callable[[Recipe], None], ...]) -> Recipe:
    document = toml.load(name, overrides)
    found = document.data.get("command")
    if command is not None and found in get_args(Command) and found != command:
        what = f"found {found!r}, this is `astro {command}`"
        raise RecipeError(document.origin("command"), "command", what, hint=f"run it with `astro {found} --recipe {name}`")
    try:
        recipe = _validate(Recipe, document.data)
        for check in checks:
            check(recipe)
    except ValidationError as error:
        key, what, hint = _first_problem(error, Recipe)
        raise RecipeError(document.origin(key), key, what, hint=hint) from error
    except ValueError as error:
        key, _, what = str(error).partition(": ")
        raise RecipeError(document.origin(key), key, what) from error
    return recipe


def _check_names(recipe: Recipe) -> None:
    """Whether the methods and rewards that the stages name exist."""
    for name in recipe.order:
        stage = recipe.stages[name]
        _check_kind("objectives", stage.objective, f"stages.{name}.objective")
        if stage.experience is not None:
            _check_kind("advantages", stage.experience.advantage, f"stages.{name}.experience.advantage")
            _check_rewards(f"stages.{name}.experience", stage.experience)


def _check_kind(package: str, table: dict[str, Any], key: str) -> None:
    kind = table.get("kind")
    if kind not in kinds(package):
        raise ValueError(f"{key}.kind: found {kind!r}, {did_you_mean(str(kind), kinds(package))}")


def _check_rewards(key: str, spec: ExperienceSpec) -> None:
    rewards, primary = spec.rewards, spec.primary
    for reward, weight in rewards.items():
        if reward not in REWARDS:
            raise ValueError(f"{key}.rewards.{reward}: unknown reward, {did_you_mean(reward, REWARDS)}")
        if weight < 0:
            raise ValueError(f"{key}.rewards.{reward}: found {weight}, expected a weight of 0 or more (0: scored, not optimised)")
    if not any(rewards.values()):
        raise ValueError(f"{key}.rewards: all weights are zero, give one of {', '.join(REWARDS)} a weight")
    if primary is not None and primary not in rewards:
        raise ValueError(f"{key}.primary: found {primary!r}, {did_you_mean(primary, rewards)}")
    if primary is not None and len(rewards) < 2:
        others = ", ".join(sorted({*REWARDS} - {primary}))
        what = f"no auxiliary reward beside {primary!r} to judge it, add one of {others} (weight 0 will do)"
        raise ValueError(f"{key}.rewards: {what}")


def check_methods(recipe: Recipe) -> None:
    """What the stages' methods ask of the recipe: their own keys, the roles they train and read, and their data.

    Raises:
        ValueError: "key: what is wrong".
    """
    for name in recipe.order:
        key, stage = f"stages.{name}", recipe.stages[name]
        config, objective = resolve_kind("objectives", stage.objective, f"{key}.objective"), objective_class(stage)
        _check_roles(key, recipe, stage, objective)
        _check_excluded(recipe, stage, objective)
        objective.source_class().check(recipe, stage, key)
        objective.check(config, recipe, stage, key)
    _check_own(recipe, [objective_class(stage) for stage in recipe.stages.values() if stage.kind in kinds("objectives")])


def _check_roles(key: str, recipe: Recipe, stage: StageSpec, objective: Any) -> None:
    """Whether a stage has what each role that its objective trains or reads is made of."""
    networks = (*NETWORK_ROLES, *objective.builds)
    for role in (*objective.trains, *objective.needs):
        known = networks if role in objective.trains else (*networks, *ADAPTER_ROLES)
        if role not in known:
            raise ValueError(f"{key}.objective.kind: {stage.kind} asks for the unknown role {role!r}, {did_you_mean(role, known)}")
        if role in ADAPTER_ROLES and recipe.lora is None:
            raise ValueError(f"lora: missing, {stage.kind} needs the role {role!r}, an adapter beside the trained one")
        fresh = role in objective.builds or (role in objective.trains and role in ("codec", "student"))
        if not fresh and role in NETWORK_ROLES and recipe.base.of(role) is None:
            raise ValueError(f"base.{role}: missing, {stage.kind} needs this role's weights")
    for role in objective.trains:
        if role not in stage.optim:
            raise ValueError(f"{key}.optim.{role}: missing, {stage.kind} trains this role")
    for role in stage.optim:
        if role not in objective.trains:
            what = f"unknown key, {stage.kind} trains no {role!r}, {did_you_mean(role, objective.trains)}"
            raise ValueError(f"{key}.optim.{role}: {what}")


def _check_excluded(recipe: Recipe, stage: StageSpec, objective: Any) -> None:
    """Refuse a cache that this stage's passes over whole clips would silently take for a plain one; only a sink that outlives frames differs."""
    cache, spec = recipe.cache, stage.experience
    frames = (spec.frames if spec is not None else stage.data.frames) or recipe.video.frames
    if cache.window is None or cache.window >= frames or cache.sink == 0:
        return
    way = f"where frames leave the window ({cache.window} of {frames}), {stage.kind} sees a sink of unchanged frames at their own places"
    if cache.policy == "ema" and "ema" in objective.excludes:
        raise ValueError(f"cache.policy: found 'ema', expected 'fixed': {way}")
    if cache.relative and "relative" in objective.excludes:
        raise ValueError(f"cache.relative: found true, expected false: {way}")


def _check_own(recipe: Recipe, objectives: list[Any]) -> None:
    """Whether every role with a table or weights of its own is one that there is, and adapters are of a trained one."""
    declared = {*NETWORK_ROLES, *(role for objective in objectives for role in objective.builds)}
    trained = {role for objective in objectives for role in objective.trains}
    for table, roles in (("roles", recipe.roles), ("base", dict(recipe.base))):
        for role in roles:
            if role not in declared:
                raise ValueError(f"{table}.{role}: unknown role, {did_you_mean(role, declared)}")
    for role, spec in recipe.roles.items():
        if spec.lora is not None and role not in trained:
            raise ValueError(f"roles.{role}.lora: found adapters of a role that no stage trains, leave them out")


def _validate(model: type[C], table: dict[str, Any]) -> C:
    """Check a table without silent conversions ("1" and true are no numbers). By way of JSON, whose arrays may become tuples."""
    return model.model_validate_json(json.dumps(table, default=str), strict=True)


def _first_problem(error: ValidationError, model: type[Config]) -> tuple[str, str, str]:
    """(dotted key, what, hint) of a validation error, in the user's words. Unknown keys first: they explain missing ones."""
    problem = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = fields_at(model, [str(part) for part in problem["loc"][:-1]])
        return key, "unknown key", did_you_mean(str(problem["loc"][-1]), allowed)
    if problem["type"] == "missing":
        return key, "missing", "add it, or extend a base recipe that has it"
    if problem["type"] == "value_error":
        inner, _, what = str(problem.get("ctx", {})["error"]).partition(": ")
        return (f"{key}.{inner}" if key else inner), what, ""
    expected = EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Input should be ").split(", unable")[0]
    return key, f"found {problem['input']!r}, expected {expected}", ""

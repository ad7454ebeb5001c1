"""What a recipe's methods require of it: existing names, their own keys, roles, caches and data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from astro_cli.config.errors import did_you_mean
from astro_cli.models.wan.config import TEXT_LEN
from astro_cli.recipe.kinds import check_kind, kinds, objective_class, resolve_kind
from astro_cli.rewards.base import EMBEDDED_KEYS, KEYS
from astro_cli.rewards.scorers import scorers, split
from astro_cli.spec import ADAPTER_ROLES, BARE, NETWORK_ROLES, REFERENCE, ExperienceSpec, PairSpec, Recipe, StageSpec


def check_names(recipe: Recipe) -> None:
    """Check that the methods and rewards that the stages name exist."""
    for name in recipe.order:
        stage = recipe.stages[name]
        check_kind("objectives", stage.objective, f"stages.{name}.objective")
        if stage.experience is not None:
            check_kind("advantages", stage.experience.advantage, f"stages.{name}.experience.advantage")
            known = _known_rewards(recipe, stage.experience.rewards)
            _check_rewards(f"stages.{name}.experience", stage.experience, known)
        if stage.pairs is not None:
            known = _known_rewards(recipe, stage.pairs.rewards)
            _check_reward_names(f"stages.{name}.pairs", stage.pairs.rewards, known)


def _known_rewards(recipe: Recipe, rewards: Iterable[str]) -> tuple[str, ...]:
    """What a reward may be called; on Wan those that only the evaluation's scorers can check count as known."""
    return EMBEDDED_KEYS if recipe.backbone == "shapes" else (*KEYS, *split(list(rewards))[1])


def _check_scorers(key: str, recipe: Recipe, spec: ExperienceSpec | PairSpec) -> None:
    """Check rewards that are metrics of the evaluation's scorers, which are imported where there is one."""
    outside = split(list(spec.rewards))[1] if recipe.backbone == "wan" else []
    if not outside and spec.scorers:
        name = next(iter(spec.scorers))
        raise ValueError(f"{key}.scorers.{name}: no reward of it, a reward is named by a metric's id on Wan")
    if outside and (wrong := scorers().problem(outside, spec.scorers)):
        raise ValueError(f"{key}.{wrong}")


def _check_rewards(key: str, spec: ExperienceSpec, known: tuple[str, ...]) -> None:
    rewards, primary = spec.rewards, spec.primary
    _check_reward_names(key, rewards, known)
    for reward, weight in rewards.items():
        if weight < 0:
            raise ValueError(
                f"{key}.rewards.{reward}: found {weight}, expected a weight of 0 or more (0: scored, not optimised)"
            )
    if not any(rewards.values()):
        raise ValueError(f"{key}.rewards: all weights are zero, give one of {', '.join(known)} a weight")
    if primary is not None and primary not in rewards:
        raise ValueError(f"{key}.primary: found {primary!r}, {did_you_mean(primary, rewards)}")
    if primary is not None and len(rewards) < 2:
        others = ", ".join(sorted({*known} - {primary}))
        what = f"no auxiliary reward beside {primary!r} to judge it, add one of {others} (weight 0 will do)"
        raise ValueError(f"{key}.rewards: {what}")


def _check_reward_names(key: str, rewards: Iterable[str], known: tuple[str, ...]) -> None:
    for reward in rewards:
        if reward not in known:
            raise ValueError(f"{key}.rewards.{reward}: unknown reward, {did_you_mean(reward, known)}")


def check_methods(recipe: Recipe) -> None:
    """Check what the backbone and the stages' methods require: sizes, the methods' own keys, the roles they train and
    read, and their data.

    Raises:
        ValueError: "key: what is wrong".
    """
    _check_backbone(recipe)
    for name in recipe.order:
        key, stage = f"stages.{name}", recipe.stages[name]
        if stage.experience is not None:
            _check_scorers(f"{key}.experience", recipe, stage.experience)
        if stage.pairs is not None:
            _check_scorers(f"{key}.pairs", recipe, stage.pairs)
        config, objective = resolve_kind("objectives", stage.objective, f"{key}.objective"), objective_class(stage)
        _check_roles(key, recipe, stage, objective)
        _check_excluded(recipe, stage, objective)
        _check_gap(recipe, stage, objective, key)
        _check_tables(key, stage, objective)
        objective.source_class().check(recipe, stage, key)
        objective.check(config, recipe, stage, key)
    _check_own(
        recipe, [objective_class(stage) for stage in recipe.stages.values() if stage.kind in kinds("objectives")]
    )


def _check_backbone(recipe: Recipe) -> None:
    """Check what the text encoder, the codec and the renderer give whatever the recipe says."""
    if recipe.backbone == "wan":
        fixed: dict[str, tuple[float, ...]] = {"model.text_len": (TEXT_LEN,)}
    else:
        from astro_cli.models.shapes_backbone import ShapesBackbone
        from astro_cli.shapes import text

        fixed = {
            "model.text_len": (text.TEXT_LEN,),
            "model.text_dim": (text.TEXT_DIM,),
            "model.in_channels": (ShapesBackbone.channels,),
            "video.fps": (ShapesBackbone.fps,),
        }
    for key, allowed in fixed.items():
        table, field = key.split(".")
        value = getattr(getattr(recipe, table), field)
        if value not in allowed:
            numbers = " or ".join(f"{number:g}" for number in allowed)
            raise ValueError(f"{key}: found {value}, expected {numbers}, as the backbone {recipe.backbone!r} has it")


def _check_roles(key: str, recipe: Recipe, stage: StageSpec, objective: Any) -> None:
    """Check that the recipe has what every role of the stage's objective is built from."""
    networks = (*NETWORK_ROLES, *objective.builds)
    for role in (*objective.trains, *objective.needs):
        known = networks if role in objective.trains else (*networks, *ADAPTER_ROLES)
        if role not in known:
            raise ValueError(
                f"{key}.objective.kind: {stage.kind} asks for the unknown role {role!r}, {did_you_mean(role, known)}"
            )
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
    """Refuse a cache rule that this stage's passes over whole clips would silently ignore. It matters only once frames
    leave the window.
    """
    cache, spec = recipe.cache, stage.experience
    frames = (spec.frames if spec is not None else stage.data.frames) or recipe.video.frames
    if cache.window is None or cache.window >= frames or cache.sink == 0:
        return
    way = (
        f"where frames leave the window ({cache.window} of {frames}), {stage.kind} sees a sink of unchanged "
        "frames at their own places"
    )
    if cache.policy == "ema" and "ema" in objective.excludes:
        raise ValueError(f"cache.policy: found 'ema', expected 'fixed': {way}")
    if cache.relative and "relative" in objective.excludes:
        raise ValueError(f"cache.relative: found true, expected false: {way}")


def _check_gap(recipe: Recipe, stage: StageSpec, objective: Any, key: str) -> None:
    """Refuse frames left out of a clip where the loss would count those that do not follow, or no block is left to
    count.
    """
    gap, block, frames = stage.data.gap, recipe.video.block, stage.data.frames or recipe.video.frames
    if gap and not objective.gaps:
        raise ValueError(f"{key}.data.gap: found {gap}, expected 0: {stage.kind} learns every frame of a clip")
    if gap % block:
        raise ValueError(f"{key}.data.gap: found {gap}, expected a multiple of video.block ({block})")
    if gap and frames < 3 * block:
        what = f"found {gap}, expected 0: clips of {frames} frames have no third block of {block}"
        raise ValueError(f"{key}.data.gap: {what}")


def _check_tables(key: str, stage: StageSpec, objective: Any) -> None:
    """Refuse tables that the stage's source would silently ignore."""
    for table in ("experience", "pairs"):
        if getattr(stage, table) is not None and table not in objective.source_class().tables:
            raise ValueError(f"{key}.{table}: found a table, {stage.kind} reads none: leave it out")


def _check_own(recipe: Recipe, objectives: list[Any]) -> None:
    """Check that every role with a table or weights of its own exists, and that adapters belong to a trained role."""
    declared = {*NETWORK_ROLES, *(role for objective in objectives for role in objective.builds)}
    if any(BARE in objective.needs for objective in objectives):
        declared.add(REFERENCE)  # named in base, it must be the student's weights
    trained = {role for objective in objectives for role in objective.trains}
    for table, roles in (("roles", recipe.roles), ("base", dict(recipe.base))):
        for role in roles:
            if role not in declared:
                raise ValueError(f"{table}.{role}: unknown role, {did_you_mean(role, declared)}")
    for role, spec in recipe.roles.items():
        if spec.lora is not None and role not in trained:
            raise ValueError(f"roles.{role}.lora: found adapters of a role that no stage trains, leave them out")

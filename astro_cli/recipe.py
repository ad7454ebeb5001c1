"""The root Recipe: one checked, typed description of a whole training run. Reads no weights and starts nothing.

Stages run one after the other on the same networks (a codec then a teacher; teacher forcing, then consistency, then DMD). A stage's objective and
advantage are checked against the `Config` class of the module their `kind` names, so a new method needs no change here.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
import re
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from astro_cli.cache.spec import cache_problem
from astro_cli.config import toml
from astro_cli.config.base import Config
from astro_cli.config.errors import RecipeError, did_you_mean
from astro_cli.config.problems import fields_at
from astro_cli.models.wan.config import WanConfig

Command = Literal["pretrain", "distill", "rl", "long-tune"]
Role = Literal["codec", "student", "critic"]
TIMESTEPS = 1000  # a timestep is 1000 sigma
ADAPTER_ROLES = ("old", "ref")  # the student through another adapter
C = TypeVar("C", bound=Config)

BAD_KEY = "[key]"  # pydantic's mark, in an error's location, of a key that is no allowed value
EXPECTED = {"model_type": "a table", "dict_type": "a table", "tuple_type": "an array", "int_type": "an integer", "float_type": "a number",
            "string_type": "a string", "bool_type": "true or false", "int_from_float": "an integer", "too_short": "at least one value"}  # fmt: skip


class VideoSpec(Config):
    """Shape of the training videos. Frames and block are latent frames, height and width latent cells."""

    frames: int = Field(gt=0)
    block: int = Field(gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    fps: float = Field(gt=0)  # of the decoded video


class SamplerSpec(Config):
    """The distilled student's schedule: steps in (0, 1000], falling, before warping by the flow shift."""

    steps: tuple[float, ...] = Field(default=(1000, 750, 500, 250), min_length=1)
    shift: float = Field(gt=0)


class TeacherSampler(Config):
    """Multi-step sampling of the bidirectional teacher: Euler steps, guidance u + scale (c - u)."""

    steps: int = Field(gt=0)
    guidance: float = Field(ge=0)


class CacheConfig(Config):
    """Rolling cache in latent frames; the window includes sink and current block, absent = everything."""

    window: int | None = Field(default=None, gt=0)
    sink: int = Field(default=0, ge=0)
    relative: bool = False
    policy: Literal["fixed", "ema"] = "fixed"  # ema: evicted frames are blended into the sink (Reward Forcing)
    alpha: float = Field(default=0.999, ge=0, le=1)  # share of the old sink that ema keeps


class BaseSpec(Config):
    """Weights to start from, per role: a packaged base ("shapes/teacher"), a run folder, or a weights file."""

    codec: str | None = None
    student: str | None = None
    teacher: str | None = None
    critic: str | None = None


class LoraSpec(Config):
    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class OptimSpec(Config):
    """AdamW, or Muon on the blocks' matrices (rate `matrix_lr`) and AdamW on the rest.

    `every` is the cadence: the role is updated in steps divisible by it.
    """

    lr: float = Field(gt=0)
    matrix_lr: float | None = Field(default=None, gt=0)
    matrix_dtype: Literal["bfloat16", "float32"] = "bfloat16"  # Muon's orthogonalisation runs in it
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    eps: float = Field(default=1e-8, gt=0)
    clip: float = Field(default=1.0, gt=0)
    warmup: int = Field(default=0, ge=0)
    decay: Literal["constant", "cosine"] = "constant"
    every: int = Field(default=1, gt=0)


class EmaSpec(Config):
    decay: float = Field(gt=0, lt=1)
    start: int = Field(default=0, ge=0)


class DataSpec(Config):
    """Training captions and clips. `drop` is the chance that a caption leaves an attribute out; `pool` the number of pre-encoded clips."""

    drop: float = Field(default=0.0, ge=0, lt=1)
    pool: int = Field(default=8192, gt=0)
    frames: int | None = Field(default=None, gt=0)  # latent frames of a clip; absent: video.frames (of a codec's training clips: 1)
    lead: int = Field(default=0, ge=0)  # latent frames encoded before a clip and cut off: it then begins in the middle of a video
    prompts: str | None = None  # a text file, one prompt a line; absent: the embedded world's own grammar


class CollapseSpec(Config):
    """When an RL run is said to have collapsed, and whether it then stops."""

    falling: int = Field(default=10, gt=0)  # epochs in a row in which the mean reward fell
    static: float = Field(default=0.1, ge=0, lt=1)  # motion of the clips, as a share of the first epoch's
    stop: bool = False


class ExperienceSpec(Config):
    """What an RL step collects: groups of clips per prompt, their rewards, and the credit each clip gets.

    A group is `group` candidates of one clip that continue one shared history, or, where `clip` is 0, `group` whole videos from their own noise.
    Frames are latent frames. A reward of weight 0 is not optimised: where `primary` is given, it helps to judge the primary one; else it is scored
    for the log, in the embedded world only.
    """

    prompts: int = Field(gt=0)
    group: int = Field(gt=1)
    updates: int = Field(default=1, gt=0)  # optimiser steps the collected clips are split into
    parallel: int | None = Field(default=None, gt=0)  # clips a process generates at once; absent: all of its own
    rewards: dict[str, float]
    advantage: dict[str, Any] = Field(default={"kind": "group"})
    frames: int | None = Field(default=None, gt=0)  # of the rolled-out video; absent: video.frames
    clip: int = Field(default=0, ge=0)  # of a candidate clip: the window W; 0: whole videos
    window: Literal["random", "last"] = "random"  # where the clip is: at a random block, the same for all processes, or at the end
    primary: str | None = None  # reward whose over-scored samples are at risk; the others judge it
    ranks: Literal["paper", "released"] = "paper"  # the released code's sign marks what the primary ranks below the others
    collapse: CollapseSpec = CollapseSpec()
    samples_every: int = Field(default=0, ge=0)  # epochs between clips written into the run's folder; 0: none


class StageSpec(Config):
    """One objective trained for a number of steps. `batch` is global, over processes and accumulation."""

    objective: dict[str, Any]
    steps: int = Field(ge=0)
    batch: int = Field(gt=0)
    accumulate: int = Field(default=1, gt=0)
    optim: dict[Role, OptimSpec]
    ema: EmaSpec | None = None
    data: DataSpec = DataSpec()
    experience: ExperienceSpec | None = None

    @property
    def kind(self) -> str:
        return self.objective["kind"]

    def optimizer(self, role: str) -> OptimSpec:
        return dict[str, OptimSpec](self.optim)[role]  # type: ignore[arg-type]


class RuntimeSpec(Config):
    """How a run executes. Nothing here changes what is computed, but for the precision."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False
    save_every: int = Field(default=100, gt=0)
    tracker: Literal["none", "tensorboard"] = "none"


class Recipe(Config):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")  # also the run folder's name
    command: Command
    paper: str = ""
    backbone: Literal["shapes", "wan"]
    seed: int = Field(default=0, ge=0)
    model: WanConfig
    video: VideoSpec
    sampler: SamplerSpec
    teacher: TeacherSampler
    cache: CacheConfig = CacheConfig()
    base: BaseSpec = BaseSpec()
    lora: LoraSpec | None = None
    runtime: RuntimeSpec = RuntimeSpec()
    order: tuple[str, ...] = Field(min_length=1)  # the stages to run, in this order
    stages: dict[str, StageSpec]

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.video.frames % self.video.block:
            raise ValueError(f"video.frames: found {self.video.frames}, expected a multiple of video.block ({self.video.block})")
        steps = self.sampler.steps
        if not all(0 < step <= TIMESTEPS for step in steps) or any(later >= step for step, later in pairwise(steps)):
            raise ValueError(f"sampler.steps: found {list(steps)}, expected strictly falling steps in (0, {TIMESTEPS}]")
        if problem := cache_problem(self.cache.window, self.cache.sink, self.video.block):
            raise ValueError(f"cache.{problem[0]}: {problem[1]}")
        for name in self.order:
            if name not in self.stages:
                raise ValueError(f"order: no stage {name!r}, {did_you_mean(name, self.stages)}")
            self._check_stage(f"stages.{name}", self.stages[name])
        rows, columns = self.model.patch
        for key, cells, patch in (("height", self.video.height, rows), ("width", self.video.width, columns)):
            if cells % patch:
                raise ValueError(f"video.{key}: found {cells}, expected a multiple of the patch ({patch})")
        return self

    def _check_stage(self, key: str, stage: StageSpec) -> None:
        config = resolve_kind("objectives", stage.objective, f"{key}.objective")
        objective = importlib.import_module(f"astro_cli.objectives.{stage.kind}").Objective
        for role in objective.trains:
            if role not in stage.optim:
                raise ValueError(f"{key}.optim.{role}: missing, {stage.kind} trains this role")
        for role in objective.needs:
            if role in ADAPTER_ROLES and self.lora is None:
                raise ValueError(f"lora: missing, {stage.kind} needs the role {role!r}, an adapter beside the trained one")
            if role not in ADAPTER_ROLES and getattr(self.base, role) is None:
                raise ValueError(f"base.{role}: missing, {stage.kind} needs this role's weights")
        if stage.batch % stage.accumulate:
            raise ValueError(f"{key}.batch: found {stage.batch}, expected a multiple of accumulate ({stage.accumulate})")
        if self.backbone == "wan" and objective.consumes in ("prompts", "experience") and stage.data.prompts is None:
            raise ValueError(f"{key}.data.prompts: missing, training on Wan needs a text file with a prompt a line")
        self._check_excluded(stage, objective)
        if objective.consumes == "experience":
            self._check_experience(key, stage)
            self._check_rewards(f"{key}.experience", stage, objective.wants_risk(config))
            self._check_rollout(f"{key}.experience", stage)

    def _check_excluded(self, stage: StageSpec, objective: Any) -> None:
        """Refuse a cache that this stage's passes over whole clips would silently take for a plain one; only a sink that outlives frames differs."""
        cache, spec = self.cache, stage.experience
        frames = (spec.frames if spec is not None else stage.data.frames if objective.consumes == "latents" else None) or self.video.frames
        if cache.window is None or cache.window >= frames or cache.sink == 0:
            return
        way = f"where frames leave the window ({cache.window} of {frames}), {stage.kind} sees a sink of unchanged frames at their own places"
        if cache.policy == "ema" and "ema" in objective.excludes:
            raise ValueError(f"cache.policy: found 'ema', expected 'fixed': {way}")
        if cache.relative and "relative" in objective.excludes:
            raise ValueError(f"cache.relative: found true, expected false: {way}")

    def _check_experience(self, key: str, stage: StageSpec) -> None:
        spec = stage.experience
        if spec is None:
            raise ValueError(f"{key}.experience: missing, {stage.kind} learns from scored rollouts")
        if stage.batch != spec.prompts * spec.group:
            raise ValueError(f"{key}.batch: found {stage.batch}, expected prompts x group ({spec.prompts * spec.group})")
        if spec.group % spec.updates:
            raise ValueError(f"{key}.experience.updates: found {spec.updates}, expected a divisor of the group ({spec.group})")
        if stage.batch % (spec.updates * stage.accumulate):
            raise ValueError(f"{key}.accumulate: found {stage.accumulate}, expected updates x accumulate to divide the batch ({stage.batch})")
        resolve_kind("advantages", spec.advantage, f"{key}.experience.advantage")

    def _check_rewards(self, key: str, stage: StageSpec, wants_risk: bool) -> None:
        assert stage.experience is not None
        rewards, primary = stage.experience.rewards, stage.experience.primary
        known = importlib.import_module("astro_cli.rewards.base").KEYS
        for reward in rewards:
            if reward not in known:
                raise ValueError(f"{key}.rewards.{reward}: unknown reward, {did_you_mean(reward, known)}")
            if rewards[reward] < 0:
                what = "expected a weight of 0 or more (0: scored, not optimised)"
                raise ValueError(f"{key}.rewards.{reward}: found {rewards[reward]}, {what}")
        if not any(rewards.values()):
            raise ValueError(f"{key}.rewards: all weights are zero, give one of {', '.join(known)} a weight")
        if primary is None and wants_risk:
            raise ValueError(f"{key}.primary: missing, a selective penalty needs the reward that is optimised, {did_you_mean('', rewards)}")
        if primary is not None and primary not in rewards:
            raise ValueError(f"{key}.primary: found {primary!r}, {did_you_mean(primary, rewards)}")
        if primary is not None and len(rewards) < 2:
            others = ", ".join(sorted({*known} - {primary}))
            raise ValueError(f"{key}.rewards: no auxiliary reward beside {primary!r} to judge it, add one of {others} (weight 0 will do)")

    def _check_rollout(self, key: str, stage: StageSpec) -> None:
        spec, block, window = stage.experience, self.video.block, self.cache.window
        assert spec is not None
        frames = spec.frames or self.video.frames
        if frames % block:
            raise ValueError(f"{key}.frames: found {frames}, expected a multiple of video.block ({block})")
        if window is not None and window > frames:
            raise ValueError(f"cache.window: found {window}, the videos of stage {key.split('.')[1]} have {frames} frames, expected at most that")
        if spec.clip % block or spec.clip > frames or (spec.clip == 0 and self.command == "long-tune"):
            raise ValueError(f"{key}.clip: found {spec.clip}, expected a multiple of video.block ({block}) up to the video's {frames} frames")
        if spec.clip and stage.objective.get("context") == "released":
            raise ValueError(f"{key}.clip: found {spec.clip}, expected 0: context = 'released' has no history")
        if self.command == "long-tune" and window is None:
            raise ValueError("cache.window: missing, long tuning needs a window so that memory does not grow with the video")

    def hash(self) -> str:
        """Short hash of everything that decides what is computed: not the name, not what a run shows or when it stops (samples, collapse), and of the
        runtime only a precision other than float32."""
        shown = {"stages": {"__all__": {"experience": {"samples_every", "collapse"}}}}
        data = self.model_dump(mode="json", exclude={"runtime": True, "name": True, **shown}, exclude_defaults=True)
        if self.runtime.precision != "no":
            data["precision"] = self.runtime.precision
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def kinds(package: str) -> list[str]:
    """Keys available in `objectives` or `advantages`: the modules' stems."""
    module = importlib.import_module(f"astro_cli.{package}")
    return sorted(info.name for info in pkgutil.iter_modules(module.__path__) if info.name != "base")


def resolve_kind(package: str, table: dict[str, Any], key: str) -> Config:
    """Check a table `{kind = ..., ...}` against the `Config` of the module its kind names.

    Raises:
        ValueError: "key: what is wrong", for unknown kinds, keys and values.
    """
    kind = table.get("kind")
    if kind not in kinds(package):
        raise ValueError(f"{key}.kind: found {kind!r}, {did_you_mean(str(kind), kinds(package))}")
    config_class = importlib.import_module(f"astro_cli.{package}.{kind}").Config
    try:
        return _validate(config_class, {name: value for name, value in table.items() if name != "kind"})
    except ValidationError as error:
        inner, what, hint = _first_problem(error, config_class)
        raise ValueError(f"{key}.{inner}: {what}" + (f", {hint}" if hint else "")) from error


def load_recipe(name: str, overrides: list[str] | None = None, command: str | None = None) -> Recipe:
    """Read, merge and check a recipe.

    Args:
        command: the command it is for; a recipe of another command is refused.

    Raises:
        RecipeError: with the file that set the offending key, what was found and what is allowed.
    """
    document = toml.load(name, overrides)
    found = document.data.get("command")
    if command is not None and found in get_args(Command) and found != command:
        what = f"found {found!r}, this is `astro {command}`"
        raise RecipeError(document.origin("command"), "command", what, hint=f"run it with `astro {found} --recipe {name}`")
    try:
        return _validate(Recipe, document.data)
    except ValidationError as error:
        key, what, hint = _first_problem(error, Recipe)
        raise RecipeError(document.origin(key), key, what, hint=hint) from error


def _validate(model: type[C], table: dict[str, Any]) -> C:
    """Check a table without silent conversions ("1" and true are no numbers). By way of JSON, whose arrays may become tuples."""
    return model.model_validate_json(json.dumps(table, default=str), strict=True)


def _first_problem(error: ValidationError, model: type[Config]) -> tuple[str, str, str]:
    """(dotted key, what, hint) of a validation error, in the user's words. Unknown keys first: they explain missing ones."""
    problem = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"] if part != BAD_KEY)
    if BAD_KEY in problem["loc"]:
        return key, "unknown key", did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", problem["msg"]))
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

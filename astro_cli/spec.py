"""What a recipe says: one typed description of a whole training run, whose parts fit together. Free of torch.

Stages run one after the other on the same networks (a codec then a teacher; teacher forcing, then consistency, then
DMD). The tables of a stage's objective and advantage are checked by `recipe` against the method that their `kind` names.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from astro_cli.cache.spec import cache_problem
from astro_cli.config.base import Config
from astro_cli.config.errors import did_you_mean
from astro_cli.models.wan.config import WanConfig
from astro_cli.sampling.kernel import Kernel, Kind, level_problem

Command = Literal["pretrain", "distill", "rl", "long-tune"]
TIMESTEPS = 1000  # a timestep is 1000 sigma
TRANSFORMER_ROLES = ("student", "teacher", "critic")
NETWORK_ROLES = ("codec", *TRANSFORMER_ROLES)  # built from the recipe alone; methods may declare more
ADAPTER_ROLES = ("old", "ref")  # the student through another adapter


class VideoSpec(Config):
    """Shape of the training videos. Frames and block are latent frames, height and width latent cells."""

    frames: int = Field(gt=0)
    block: int = Field(gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    fps: float = Field(gt=0)  # of the decoded video


class SamplerSpec(Config):
    """The distilled student's steps and kernel: steps in (0, 1000], falling, before warping by the flow shift."""

    steps: tuple[float, ...] = Field(default=(1000, 750, 500, 250), min_length=1)
    shift: float = Field(gt=0)
    kind: Kind = "renoise"
    noise: float | None = None  # the kernel's level: nu of cps, eta of dance, a of flow

    @model_validator(mode="after")
    def _check(self) -> SamplerSpec:
        if problem := level_problem(self.kind, self.noise):
            raise ValueError(f"noise: {problem}")
        return self

    def kernel(self) -> Kernel:
        return Kernel(self.kind, self.noise or 0.0)


class TeacherSampler(Config):
    """How videos are sampled from the bidirectional teacher: Euler steps, guidance u + scale (c - u).

    Objectives that ask the teacher have values of their own.
    """

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
    """Weights to start from, per role: a packaged base ("shapes/teacher"), a run folder, or a weights file.

    Further keys are the roles that the recipe's methods declare.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)
    codec: str | None = None
    student: str | None = None
    teacher: str | None = None
    critic: str | None = None

    def of(self, role: str) -> str | None:
        """The weights of a role, None where it has none."""
        return dict(self).get(role)


class LoraSpec(Config):
    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class RoleModel(Config):
    """Sizes in which a role's transformer differs from the recipe's `model`; absent: that one's."""

    dim: int | None = Field(default=None, gt=0)
    ffn_dim: int | None = Field(default=None, gt=0)
    num_heads: int | None = Field(default=None, gt=0)
    num_layers: int | None = Field(default=None, gt=0)
    freq_dim: int | None = Field(default=None, gt=0, multiple_of=2)


class RoleSpec(Config):
    """What a role beside the student has of its own: its model's sizes, and adapters of which alone it is trained."""

    model: RoleModel = RoleModel()
    lora: LoraSpec | None = None


class OptimSpec(Config):
    """The optimiser of a role.

    Attributes:
        kind: AdamW; Muon on the blocks' matrices (rate `matrix_lr`) and AdamW on the rest; or RMSProp.
        betas: of AdamW.
        alpha: RMSProp's share of the old mean square.
        every: the cadence: the role is updated in steps divisible by it.
    """

    kind: Literal["adam", "muon", "rmsprop"] = "adam"
    lr: float = Field(gt=0)
    matrix_lr: float | None = Field(default=None, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float | None = Field(default=None, gt=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    eps: float = Field(default=1e-8, gt=0)
    clip: float = Field(default=1.0, gt=0)
    warmup: int = Field(default=0, ge=0)
    decay: Literal["constant", "cosine"] = "constant"
    every: int = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _check(self) -> OptimSpec:
        for key, value, kind in (("matrix_lr", self.matrix_lr, "muon"), ("alpha", self.alpha, "rmsprop")):
            if value is None and self.kind == kind:
                raise ValueError(f"{key}: missing, kind = {kind!r} needs it")
            if value is not None and self.kind != kind:
                raise ValueError(f"{key}: found {value} with kind {self.kind!r}, it is a key of kind = {kind!r}")
        return self


class EmaSpec(Config):
    """Moving average of the weights of the first role that a stage trains: what is saved and evaluated at its end.

    Attributes:
        decay: share of the average kept per update of that role.
        start: updates before this one set the average to the weights.
        ramp: after the n-th update keep min((1 + n) / (10 + n), decay), as Astrolabe's released code does.
    """

    decay: float = Field(gt=0, lt=1)
    start: int = Field(default=0, ge=0)
    ramp: bool = False


class DataSpec(Config):
    """Training captions and clips. `drop` is the chance that a caption leaves an attribute out; `pool` the number of pre-encoded clips."""

    drop: float = Field(default=0.0, ge=0, lt=1)
    pool: int = Field(default=8192, gt=0)
    frames: int | None = Field(default=None, gt=0)  # latent frames of a clip; absent: video.frames
    prompts: str | None = None  # a text file, one prompt a line; absent: the embedded world's own grammar
    clips: str | None = None  # Wan: a folder of videos with a text file beside each, or a manifest.jsonl


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
    optim: dict[str, OptimSpec]  # by role
    ema: EmaSpec | None = None
    data: DataSpec = DataSpec()
    experience: ExperienceSpec | None = None

    @property
    def kind(self) -> str:
        return self.objective["kind"]


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
    lora: LoraSpec | None = None  # the student's adapters
    roles: dict[str, RoleSpec] = Field(default={})  # what other roles have of their own
    runtime: RuntimeSpec = RuntimeSpec()
    order: tuple[str, ...] = Field(min_length=1)  # the stages to run, in this order
    stages: dict[str, StageSpec]

    def model_of(self, role: str) -> WanConfig:
        """Sizes of a role's transformer."""
        own = self.roles[role].model.model_dump(exclude_none=True) if role in self.roles else {}
        return WanConfig.model_validate(self.model.model_dump() | own)

    def lora_of(self, role: str) -> LoraSpec | None:
        """A role's adapters, None where it is trained whole or not at all."""
        if role == "student":
            return self.lora
        return self.roles[role].lora if role in self.roles else None

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
        self._check_roles()
        return self

    def _check_roles(self) -> None:
        for role in self.roles:
            if role in ("student", *ADAPTER_ROLES):
                raise ValueError(f"roles.{role}: unknown key, the student and its adapters are described by [model] and [lora]")
            if role == "codec":
                raise ValueError("roles.codec: unknown key, the codec has sizes of its own")
            try:
                self.model_of(role)
            except ValidationError as error:
                raise ValueError(f"roles.{role}.model.{error.errors()[0].get('ctx', {})['error']}") from error
        known = {*NETWORK_ROLES, *self.roles, *(role for stage in self.stages.values() for role in stage.optim)}
        for role in self.base.__pydantic_extra__:
            if role not in known:
                raise ValueError(f"base.{role}: unknown key, {did_you_mean(role, known)}")

    def _check_stage(self, key: str, stage: StageSpec) -> None:
        if stage.batch % stage.accumulate:
            raise ValueError(f"{key}.batch: found {stage.batch}, expected a multiple of accumulate ({stage.accumulate})")
        if stage.experience is not None:
            self._check_experience(key, stage, stage.experience)
            self._check_rollout(f"{key}.experience", stage.experience)

    def _check_experience(self, key: str, stage: StageSpec, spec: ExperienceSpec) -> None:
        if stage.batch != spec.prompts * spec.group:
            raise ValueError(f"{key}.batch: found {stage.batch}, expected prompts x group ({spec.prompts * spec.group})")
        if spec.group % spec.updates:
            raise ValueError(f"{key}.experience.updates: found {spec.updates}, expected a divisor of the group ({spec.group})")
        if stage.batch % (spec.updates * stage.accumulate):
            what = f"found {stage.accumulate}, expected updates x accumulate to divide the batch ({stage.batch})"
            raise ValueError(f"{key}.accumulate: {what}")

    def _check_rollout(self, key: str, spec: ExperienceSpec) -> None:
        block, window = self.video.block, self.cache.window
        frames = spec.frames or self.video.frames
        if frames % block:
            raise ValueError(f"{key}.frames: found {frames}, expected a multiple of video.block ({block})")
        if window is not None and window > frames:
            raise ValueError(f"cache.window: found {window}, the videos of stage {key.split('.')[1]} have {frames} frames, expected at most that")
        if spec.clip % block or spec.clip > frames or (spec.clip == 0 and self.command == "long-tune"):
            raise ValueError(f"{key}.clip: found {spec.clip}, expected a multiple of video.block ({block}) up to the video's {frames} frames")
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

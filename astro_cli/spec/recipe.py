"""A recipe: one typed description of a whole training run, whose parts fit together. Free of torch.

Stages run one after the other on the same networks (a codec then a teacher; teacher forcing, then consistency, then
DMD). The tables of a stage's objective and advantage are checked by `astro_cli.recipe` against the method that their
`kind` names.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from astro_cli.cache.spec import CacheSpec, cache_problem
from astro_cli.config.base import Config
from astro_cli.config.errors import did_you_mean
from astro_cli.config.seeds import LARGEST
from astro_cli.models.wan.config import CAMERA_CHANNELS, WanConfig
from astro_cli.spec.parts import (
    ADAPTER_ROLES,
    NETWORK_ROLES,
    REFERENCE,
    TIMESTEPS,
    BaseSpec,
    Command,
    ExperienceSpec,
    LoraSpec,
    RoleSpec,
    RuntimeSpec,
    SamplerSpec,
    StageName,
    StageSpec,
    TeacherSampler,
    VideoSpec,
)


class Recipe(Config):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")  # also the run folder's name
    command: Command
    paper: str = ""
    backbone: Literal["shapes", "wan"]
    policy: Literal["streaming", "bidirectional"] = "streaming"  # what RL aligns: a few-step student, or the teacher
    seed: int = Field(default=0, ge=0, le=LARGEST)
    model: WanConfig
    video: VideoSpec
    sampler: SamplerSpec
    teacher: TeacherSampler
    cache: CacheSpec = CacheSpec()
    base: BaseSpec = BaseSpec()
    lora: LoraSpec | None = None  # the student's adapters
    roles: dict[str, RoleSpec] = Field(default={})  # what other roles have of their own
    runtime: RuntimeSpec = RuntimeSpec()
    order: tuple[str, ...] = Field(min_length=1)  # the stages to run, in this order
    stages: dict[StageName, StageSpec]

    @property
    def bidirectional(self) -> bool:
        """Whether the student is a multi-step network that makes whole clips."""
        return self.command == "pretrain" or self.policy == "bidirectional"

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
            raise ValueError(
                f"video.frames: found {self.video.frames}, expected a multiple of video.block ({self.video.block})"
            )
        steps = self.sampler.steps
        if not all(0 < step <= TIMESTEPS for step in steps) or any(later >= step for step, later in pairwise(steps)):
            raise ValueError(f"sampler.steps: found {list(steps)}, expected strictly falling steps in (0, {TIMESTEPS}]")
        if problem := cache_problem(self.cache.window, self.cache.sink, self.video.block):
            raise ValueError(f"cache.{problem[0]}: {problem[1]}")
        if self.cache.window is None and self.cache.sink:
            what = (
                f"found {self.cache.sink} without a window, where no frame is ever evicted: expected 0 or cache.window"
            )
            raise ValueError(f"cache.sink: {what}")
        for name in self.order:
            if name not in self.stages:
                raise ValueError(f"order: no stage {name!r}, {did_you_mean(name, self.stages)}")
            self._check_stage(f"stages.{name}", self.stages[name])
        rows, columns = self.model.patch
        for key, cells, patch in (("height", self.video.height, rows), ("width", self.video.width, columns)):
            if cells % patch:
                raise ValueError(f"video.{key}: found {cells}, expected a multiple of the patch ({patch})")
        self._check_recycling()
        self._check_roles()
        return self

    def _check_recycling(self) -> None:
        extra, recycle = self.model.extra_channels, self.sampler.recycle
        if self.video.camera and self.backbone != "shapes":
            raise ValueError("video.camera: found true, only the embedded world's cameras are known")
        if recycle is None and not extra and not self.video.camera:
            return
        channels = self.model.in_channels
        if recycle is None or extra != channels + self.video.camera * CAMERA_CHANNELS:
            what = f"found {extra} with sampler.recycle {recycle!r}"
            rays = f" and {CAMERA_CHANNELS} of the camera" if self.video.camera else ""
            needs = f'expected {channels}, those of a latent frame,{rays} with sampler.recycle = "previous" or "first"'
            raise ValueError(f"model.extra_channels: {what}, {needs}")
        if self.video.block != 1:
            raise ValueError(
                f"video.block: found {self.video.block}, expected 1: each frame is made from the one before"
            )

    def _check_roles(self) -> None:
        for role in self.roles:
            if role in ("student", *ADAPTER_ROLES):
                raise ValueError(
                    f"roles.{role}: unknown key, the student and its adapters are described by [model] and [lora]"
                )
            if role == "codec":
                raise ValueError("roles.codec: unknown key, the codec has sizes of its own")
            try:
                self.model_of(role)
            except ValidationError as error:
                raise ValueError(f"roles.{role}.model.{error.errors()[0].get('ctx', {})['error']}") from error
        trained = {role for stage in self.stages.values() for role in stage.optim}
        known = {*NETWORK_ROLES, REFERENCE, *self.roles, *trained}
        for role in self.base.__pydantic_extra__:
            if role not in known:
                raise ValueError(f"base.{role}: unknown key, {did_you_mean(role, known)}")

    def _check_stage(self, key: str, stage: StageSpec) -> None:
        if stage.batch % stage.accumulate:
            raise ValueError(
                f"{key}.batch: found {stage.batch}, expected a multiple of accumulate ({stage.accumulate})"
            )
        if stage.experience is not None:
            self._check_experience(key, stage, stage.experience)
            self._check_rollout(f"{key}.experience", stage.experience)

    def _check_experience(self, key: str, stage: StageSpec, spec: ExperienceSpec) -> None:
        if stage.batch != spec.prompts * spec.group:
            raise ValueError(
                f"{key}.batch: found {stage.batch}, expected prompts x group ({spec.prompts * spec.group})"
            )
        if spec.group % spec.updates:
            raise ValueError(
                f"{key}.experience.updates: found {spec.updates}, expected a divisor of the group ({spec.group})"
            )
        if stage.batch % (spec.updates * stage.accumulate):
            what = f"found {stage.accumulate}, expected updates x accumulate to divide the batch ({stage.batch})"
            raise ValueError(f"{key}.accumulate: {what}")

    def _check_rollout(self, key: str, spec: ExperienceSpec) -> None:
        block, window = self.video.block, self.cache.window
        frames = spec.frames or self.video.frames
        if frames % block:
            raise ValueError(f"{key}.frames: found {frames}, expected a multiple of video.block ({block})")
        if problem := sde_problem(spec, len(self.sampler.steps)):
            raise ValueError(f"{key}.{problem}")
        if self.policy == "bidirectional" and (spec.clip or self.command == "long-tune"):
            what = f"found {spec.clip}, expected 0 and `astro rl`: a bidirectional policy makes whole videos"
            raise ValueError(f"{key}.clip: {what}")
        if spec.clip % block or spec.clip > frames or (spec.clip == 0 and self.command == "long-tune"):
            raise ValueError(
                f"{key}.clip: found {spec.clip}, expected a multiple of video.block ({block}) up to the "
                f"video's {frames} frames"
            )
        if self.command == "long-tune" and window is None:
            raise ValueError(
                "cache.window: missing, long tuning needs a window so that memory does not grow with the video"
            )

    def hash(self) -> str:
        """Short hash of everything that decides what is computed. Left out are the name, what a run shows and when it
        stops (samples, the base's clips, collapse), and all of the runtime but a precision other than float32."""
        shown = {"stages": {"__all__": {"experience": {"samples_every", "base_clips", "collapse"}}}}
        data = self.model_dump(mode="json", exclude={"runtime": True, "name": True, **shown}, exclude_defaults=True)
        if self.runtime.precision != "no":
            data["precision"] = self.runtime.precision
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def sde_problem(spec: ExperienceSpec, steps: int) -> str | None:
    """What is wrong with the window of steps that draw noise, of a sampler of so many; "key: what", None for nothing.

    The last step draws none.
    """
    if spec.sde_window is None:
        return None if spec.sde_range is None else "sde_range: found a range without a window, give sde_window too"
    first, stop = sde_steps(spec, steps)
    if spec.sde_range is not None and not 0 <= spec.sde_range[0] < spec.sde_range[1] <= steps:
        return f"sde_range: found {list(spec.sde_range)}, expected [first, stop) within the {steps} steps"
    if first >= stop:
        return (
            f"sde_range: found {list(spec.sde_range or ())}, it holds only the last step, which has no density: "
            f"begin at {max(0, steps - 2)} or earlier"
        )
    if spec.sde_window > stop - first:
        return f"sde_window: found {spec.sde_window}, expected at most {stop - first}, the steps {first} to {stop - 1}"
    return None


def sde_steps(spec: ExperienceSpec, steps: int) -> tuple[int, int]:
    """Steps [first, stop) in which the window may lie."""
    first, stop = spec.sde_range or (0, steps - 1)
    return first, min(stop, steps - 1)

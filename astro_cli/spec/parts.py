"""The tables of a recipe: video, sampler, cache, roles, optimisers, data, stages. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from astro_cli.config.base import Config
from astro_cli.models.wan.config import Depth, Width
from astro_cli.sampling.kernel import Kernel, Kind, level_problem
from astro_cli.spec.pairs import PairSpec

Command = Literal["pretrain", "distill", "rl", "long-tune", "sft", "prefer"]
TIMESTEPS = 1000  # a timestep is 1000 sigma
TRANSFORMER_ROLES = ("student", "teacher", "critic")
NETWORK_ROLES = ("codec", *TRANSFORMER_ROLES)  # built from the recipe alone; methods may declare more
BARE = "base"  # the student without adapters
ADAPTER_ROLES = ("old", "ref", BARE)  # the student through another adapter, or none
STRUCTURE = "structural_stability"  # a reward; on Wan a metric of the evaluation's scorers
REFERENCE = "reference"  # key of `[base]` that may name the weights the bare student must have


MOST_CELLS = 8192  # of 8 pixels: a side of 65,536, which pictures and video files end at
MOST_FPS = 1000  # cameras for slow motion end here
MOST_FRAMES = 10**6  # latent frames: a day at 16 fps has 350,000
MOST = 10**9  # of anything that is counted: steps, prompts, clips
StageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]*$")]  # also a part of file names
Frames = Annotated[int, Field(gt=0, le=MOST_FRAMES)]
Count = Annotated[int, Field(gt=0, le=MOST)]


class VideoSpec(Config):
    """Shape of the training videos. Frames and block are latent frames, height and width latent cells.

    `stretch`: in videos of another size, rows and columns are stretched to those of this one. `camera`: frames are made
    for moves of the camera, which a next-frame model sees in channels of their own.
    """

    frames: Frames
    block: Frames
    height: int = Field(gt=0, le=MOST_CELLS)
    width: int = Field(gt=0, le=MOST_CELLS)
    fps: float = Field(gt=0, le=MOST_FPS)  # of the decoded video
    stretch: bool = False
    camera: bool = False


class SamplerSpec(Config):
    """The student's steps and kernel: steps in (0, 1000], falling, before warping by the flow shift; or their number,
    for even ones. A bidirectional policy takes them in training; it is evaluated by the ODE in `teacher.steps`.

    `recycle`: of a next-frame model, which frames it sees in its extra channels: the one before each, or the first one
    alone, in the first pass.
    """

    steps: tuple[float, ...] = Field(default=(1000, 750, 500, 250), min_length=1)
    shift: float = Field(gt=0)
    kind: Kind = "renoise"
    recycle: Literal["previous", "first"] | None = None
    noise: float | None = None  # the kernel's level: nu of cps, eta of dance, a of flow

    @field_validator("steps", mode="before")
    @classmethod
    def _even(cls, steps: Any) -> Any:
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            return tuple(steps) if isinstance(steps, list) else steps
        if steps > TIMESTEPS:
            raise ValueError(f"steps: found {steps}, expected at most {TIMESTEPS}")
        return tuple(TIMESTEPS * (steps - index) / steps for index in range(steps))

    @model_validator(mode="after")
    def _check(self) -> SamplerSpec:
        if problem := level_problem(self.kind, self.noise):
            raise ValueError(f"noise: {problem}")
        return self

    def kernel(self) -> Kernel:
        return Kernel(self.kind, self.noise or 0.0)


class TeacherSampler(Config):
    """How videos are sampled from the bidirectional teacher: Euler steps, guidance u + scale (c - u).

    Objectives that call the teacher have their own values. A bidirectional policy is guided so in training too.
    """

    steps: int = Field(gt=0, le=TIMESTEPS)
    guidance: float = Field(ge=0)


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
    rank: Width
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class RoleModel(Config):
    """Sizes in which a role's transformer differs from the recipe's `model`; absent ones are the recipe's."""

    dim: Width | None = None
    ffn_dim: Width | None = None
    num_heads: Width | None = None
    num_layers: Depth | None = None
    freq_dim: Width | None = Field(default=None, multiple_of=2)


class RoleSpec(Config):
    """Settings of a role beside the student: its model's sizes and its adapters. With adapters, only these are
    trained."""

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
    matrix_dtype: Literal["bfloat16", "float32"] = "bfloat16"  # Muon's orthogonalisation runs in it
    betas: tuple[float, float] = (0.9, 0.999)
    alpha: float | None = Field(default=None, gt=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    eps: float = Field(default=1e-8, gt=0)
    clip: float = Field(default=1.0, gt=0)
    warmup: int = Field(default=0, ge=0, le=MOST)
    decay: Literal["constant", "cosine"] = "constant"
    every: Count = 1

    @model_validator(mode="after")
    def _check(self) -> OptimSpec:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: found {list(self.betas)}, expected two numbers from 0 to below 1")
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
    start: int = Field(default=0, ge=0, le=MOST)
    ramp: bool = False


class DataSpec(Config):
    """Training captions and clips. `drop` is the chance that a caption leaves an attribute out; `pan` that the camera
    of a rendered clip pans; `pool` the number of pre-encoded clips; `captions` that of different captions in training
    on captions alone, absent: ever new ones.
    """

    drop: float = Field(default=0.0, ge=0, lt=1)
    pan: float = Field(default=0.0, ge=0, le=1)
    pool: Count = 8192
    captions: Count | None = None
    # Latent frames of a clip; absent: video.frames, or 1 for a codec.
    frames: Frames | None = None
    # Latent frames encoded before a clip and cut off: it then begins in the middle of a video.
    lead: int = Field(default=0, ge=0, le=MOST_FRAMES)
    # Latent frames left out after a clip's first block: 0 to so many, in whole blocks, drawn for each clip. The first
    # block is then what a frame sink shows late in a video; of clips that leave any out, the second does not count.
    gap: int = Field(default=0, ge=0, le=MOST_FRAMES)
    samples: Count = 1  # of each prompt in a batch, one after the other
    prompts: str | None = None  # a text file, one prompt a line; absent: the embedded world's own grammar
    pairs: str | None = None  # JSON lines of a prompt, the path of a chosen and that of a rejected video
    clips: str | None = None  # Wan: a folder of videos with a text file beside each, or a manifest.jsonl


class CollapseSpec(Config):
    """When an RL run counts as collapsed, and whether it then stops."""

    falling: Count = 10  # epochs in a row in which the mean reward fell
    static: float = Field(default=0.1, ge=0, lt=1)  # motion of the clips, as a share of the first epoch's
    stop: bool = False


class ExperienceSpec(Config):
    """What an RL step collects: groups of clips per prompt, their rewards, and the credit each clip gets.

    A group is `group` candidates of one clip that continue one shared history, or, where `clip` is 0, `group` whole
    videos from their own noise. Frames are latent frames. A reward of weight 0 is not optimised: where `primary` is
    given, it helps to judge the primary one; else it is scored for the log, in the embedded world only.
    """

    prompts: Count
    group: int = Field(gt=1, le=MOST)
    updates: Count = 1  # optimiser steps the collected clips are split into
    parallel: Count | None = None  # clips a process generates at once; absent: all of its own
    rewards: dict[str, float]
    scorers: dict[str, dict[str, Any]] = Field(default={})  # own keys of the evaluation's scorers that are rewards
    advantage: dict[str, Any] = Field(default={"kind": "group"})
    frames: Frames | None = None  # of the rolled-out video; absent: video.frames
    clip: int = Field(default=0, ge=0, le=MOST_FRAMES)  # of a candidate clip: the window W; 0: whole videos
    window: Literal["random", "last"] = (
        "random"  # where the clip is: at a random block, the same for all processes, or at the end
    )
    primary: str | None = None  # reward whose over-scored samples are at risk; the others judge it
    same_noise: bool = False  # the samples of a group start from the same noise
    sde_window: int | None = Field(default=None, gt=0)  # steps in a row that draw noise, the others are the ODE's
    sde_range: tuple[int, int] | None = None  # steps [first, stop) in which the window is drawn for each epoch
    ranks: Literal["paper", "released"] = (
        "paper"  # the released code's sign marks what the primary ranks below the others
    )
    collapse: CollapseSpec = CollapseSpec()
    samples_every: int = Field(default=0, ge=0, le=MOST)  # epochs between clips written into the run's folder; 0: none
    base_clips: int = Field(
        default=0, ge=0, le=MOST
    )  # clips of each prompt that the base makes too, from the same noise, for the curves of `gain`; 0: none

    @model_validator(mode="after")
    def _base_clips_of_a_group(self) -> Self:
        if self.base_clips > self.group:
            raise ValueError(f"base_clips: found {self.base_clips}, a group has {self.group}")
        return self

    @property
    def scored(self) -> dict[str, float]:
        """Weights of the rewards to score. One of weight 0 is scored only where it helps to judge the primary one."""
        return {key: weight for key, weight in self.rewards.items() if weight or self.primary is not None}


class StageSpec(Config):
    """One objective trained for a number of steps. `batch` is global, over processes and accumulation."""

    objective: dict[str, Any]
    steps: int = Field(ge=0, le=MOST)
    batch: Count
    accumulate: Count = 1
    optim: dict[str, OptimSpec]  # by role
    ema: EmaSpec | None = None
    data: DataSpec = DataSpec()
    experience: ExperienceSpec | None = None
    pairs: PairSpec | None = None

    @property
    def kind(self) -> str:
        return self.objective["kind"]


# What accelerate can log to; not all of them are installed.
Tracker = Literal[
    "none", "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"
]


class RuntimeSpec(Config):
    """How a run executes. Only the precision changes what is computed."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False
    save_every: Count = 100
    tracker: Tracker = "none"

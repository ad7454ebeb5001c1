"""The contract between objectives and the trainer: what an objective declares, gets and returns.

Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns, T pixel frame, M text token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pkgutil import resolve_name
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.base import Config
from astro_cli.core.credit import CreditForm, Term
from astro_cli.core.rng import sample_noise, stream
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.features import See
from astro_cli.models.roles import Roles
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.long_sequence import LongSequence
from astro_cli.rollout.spec import StreamSpec
from astro_cli.sampling.kernel import RENOISE, Kernel
from astro_cli.sampling.trajectory import Trajectory
from astro_cli.spec import Recipe, StageSpec
from astro_cli.zoo.needs import NeededPart

Score = Callable[[torch.Tensor, list[str]], torch.Tensor]  # frames (B, T, 3, H, W) in [0, 1] and prompts -> (B,)
TENSORS = (  # a row per sample
    "text_BMD",
    "latents_BFCHW",
    "rejected_BFCHW",
    "pair_kind_B",
    "frames_BTCHW",
    "features_BFKHW",
    "flow_BN2HW",
    "moves_BF2",
    "learned_BF",
    "weight_B",
    "risk_B",
    "group_B",
)


@dataclass(frozen=True)
class Batch:
    """What one loss is computed on.

    Every random draw of a sample comes from its own seed, so losses do not depend on how samples are grouped.
    """

    seeds: list[int]
    prompts: list[str]
    text_BMD: torch.Tensor | None = None
    latents_BFCHW: torch.Tensor | None = None
    rejected_BFCHW: torch.Tensor | None = None  # of pairs, whose latents are those of the preferred clips
    pair_kind_B: torch.Tensor | None = None  # of pairs: index into `spec.PAIR_KINDS`
    frames_BTCHW: torch.Tensor | None = None
    features_BFKHW: torch.Tensor | None = None  # what the renderer knows of every latent cell
    moves_BF2: torch.Tensor | None = None  # of the camera before each latent frame, in world units
    flow_BN2HW: torch.Tensor | None = None  # true flow of each frame to the next, N = T - 1, in pixels of the frames
    learned_BF: torch.Tensor | None = None  # bool: latent frames whose error counts, absent: all
    weight_B: torch.Tensor | None = None  # of each sample's loss; its mean over the global batch is 1
    credit: tuple[Term, ...] = ()  # of RL samples: a loss per term, added
    risk_B: torch.Tensor | None = (
        None  # weight of each sample's KL term; its mean over the global batch is 1, or 0 where no sample is at risk
    )
    history_PFCHW: torch.Tensor | None = (
        None  # clean latents before the clips, a row per group; absent for whole videos
    )
    group_B: torch.Tensor | None = None  # each sample's group, which shares history (its row) and prompt
    group_seeds: list[int] | None = None  # per sample, the seed of draws its group shares
    trajectory: Trajectory | None = None  # how the old policy sampled the latents, where the objective wants it
    sequences: tuple[LongSequence, ...] = ()  # videos that go on from step to step, a sequence per micro-batch
    shared: int = 0  # seed of draws that the whole global batch shares, over parts and processes
    progress: float = 0.0  # share of the stage's steps that lie before this one, where the source says it
    others: tuple[Batch, ...] = ()  # of a draw of pairs: the same of clips of the stage's other forms
    update: int = 0  # of RL samples: which of their epoch's updates they are for; before the first, theta is theta_old

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, start: int, stop: int) -> Batch:
        """Samples [start, stop)."""
        cut = {name: getattr(self, name)[start:stop] for name in TENSORS if getattr(self, name) is not None}
        shared = None if self.group_seeds is None else self.group_seeds[start:stop]
        credit = tuple(term.rows(slice(start, stop)) for term in self.credit)
        trajectory = None if self.trajectory is None else self.trajectory.rows(slice(start, stop))
        ends = list(accumulate(sequence.batch for sequence in self.sequences))
        sequences = [each for each, end in zip(self.sequences, ends, strict=True) if start < end <= stop]
        assert sum(each.batch for each in sequences) in (0, stop - start), "whole sequences"
        return replace(
            self,
            seeds=self.seeds[start:stop],
            prompts=self.prompts[start:stop],
            group_seeds=shared,
            credit=credit,
            trajectory=trajectory,
            sequences=tuple(sequences),
            others=(),
            **cut,
        )

    def to(self, device: torch.device) -> Batch:
        names = (*TENSORS, "history_PFCHW")
        credit = tuple(term.to(device) for term in self.credit)
        return replace(
            self,
            credit=credit,
            trajectory=None if self.trajectory is None else self.trajectory.to(device),
            others=tuple(other.to(device) for other in self.others),
            **{name: getattr(self, name).to(device) for name in names if getattr(self, name) is not None},
        )

    def noise_like(self, x: torch.Tensor, use: str) -> torch.Tensor:
        """Standard normal noise of x's shape (B, ...), from the samples' own streams."""
        return sample_noise(tuple(x.shape[1:]), self.seeds, use, device=x.device)

    def mean_error(self, error_BFCHW: torch.Tensor) -> torch.Tensor:
        """Mean of squared errors (B, F, ...): of a sample over the frames that count, then over samples."""
        if self.learned_BF is None:
            return error_BFCHW.mean()
        counts = self.learned_BF.to(error_BFCHW)
        return ((error_BFCHW.flatten(2).mean(2) * counts).sum(1) / counts.sum(1)).mean()

    def uniform(self, count: int, use: str) -> torch.Tensor:
        """(B, count) uniform numbers in [0, 1), from the samples' own streams."""
        return torch.stack([torch.rand(count, generator=stream(seed, use)) for seed in self.seeds])


@dataclass(frozen=True)
class LossOutput:
    loss: torch.Tensor
    metrics: dict[str, float] = field(default_factory=dict)


def _no_timer(_: str) -> AbstractContextManager[None]:
    return nullcontext()


def _alone(value: float) -> float:
    return value


def _own(value: torch.Tensor) -> torch.Tensor:
    return value


def _no_decoder() -> StreamingDecoder:
    raise AssertionError("this run context has no decoder")


def _no_features(name: str) -> See:
    raise AssertionError(f"this run context has no features {name!r}")


def _no_reward(key: str) -> Score:
    raise AssertionError(f"this run context has no scorer of {key!r}")


@dataclass
class RunContext:
    """The run's facts an objective may need. Frames and block in latent frames, steps warped, in [0, 1000]."""

    roles: Roles
    steps: torch.Tensor  # (S,) float64
    shift: float
    frames: int
    block: int
    latent_shape: tuple[int, int, int]  # C, H, W
    cache: CacheSpec
    encode_text: Callable[[list[str]], torch.Tensor]
    decoder: Callable[[], StreamingDecoder] = _no_decoder  # at the start of a batch of videos
    reward: Callable[[str], Score] = _no_reward  # a scorer by name: finite scores, one per clip
    features: Callable[[str], See] = _no_features  # of frames, by name
    kernel: Kernel = RENOISE  # the student's, between its steps
    recycle: Literal["previous", "first"] | None = None  # of a next-frame model
    bidirectional: bool = False  # the student makes whole clips, with guidance
    guidance: float = 1.0  # of a bidirectional student
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    section: Callable[[str], AbstractContextManager[Any]] = _no_timer  # times a part of the step: "rollout", "teacher"
    mean: Callable[[float], float] = _alone  # over processes
    gather: Callable[[torch.Tensor], torch.Tensor] = _own  # rows of all processes
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext  # the run's precision, for passes outside a loss
    _empty: torch.Tensor | None = field(default=None, init=False, repr=False)  # states (1, M, D) of the empty prompt

    def stream_spec(self) -> StreamSpec:
        """How the student streams."""
        return StreamSpec(
            self.steps, self.block, self.latent_shape, self.cache, kernel=self.kernel, recycle=self.recycle
        )

    def empty_text(self, text_BMD: torch.Tensor) -> torch.Tensor:
        """States (B, M, D) of the empty prompt, a row for each of `text_BMD`: guidance's unconditional branch.

        Zeros on `shapes`, not on Wan.
        """
        if self._empty is None:
            self._empty = self.encode_text([""]).to(text_BMD)
        return self._empty.to(text_BMD).expand_as(text_BMD)


@dataclass(frozen=True)
class RoleContext:
    """What a role that an objective declares is built from.

    Attributes:
        role: its name.
        recipe: the run's; `recipe.base.of(role)` are weights to start from.
        modules: the networks that are built already, by role; declared roles come last.
        transformer: a transformer of the role's own sizes, with the weights of `base.<role>` or fresh ones.
        initialise: fresh weights for a module, from the run's own streams; nothing in a dry run, on the meta device.
        codec: the network that the run encodes and decodes with; what is done to it is done to the run's.
    """

    role: str
    recipe: Recipe
    modules: Mapping[str, nn.Module]
    transformer: Callable[[], CausalWan]
    initialise: Callable[[nn.Module], None]
    codec: Callable[[], nn.Module]


class Objective:
    """One loss per trained role. Subclasses are modules' `Objective` classes beside their `Config`.

    Class attributes:
        trains: roles whose parameters it updates, in the order of a step; the recipe's moving average is of the first.
        needs: further roles it reads.
        builds: how the roles are built that are neither networks of the recipe nor adapters of the student, e.g. a
            discriminator.
        source: where its batches come from: a class with the members of `training.sources.Source`, or "module:Class".
        credits: forms of credit it can use: per "sample", or with a "map" of where it goes.
        wants_trajectory: scored clips come with `Batch.trajectory`, the steps of the old policy that made them; else
            nothing is recorded.
        persistent: its videos go on from step to step, those of all micro-batches at once.
        excludes: rules of the student's cache that its passes over whole clips cannot show once frames leave the
            window.
        gaps: its loss counts frames as `Batch.learned_BF` says, so `data.gap` may leave some out of a clip.
        widens: it may begin with weights that know no extra input channels; the new ones are fresh.
        sets: roles that it does not train and whose weights `finish` sets, where the recipe has them.
        shards: it trains transformers that are divided among processes too; not where it copies networks or reads their
            weights itself.
    """

    trains: ClassVar[tuple[str, ...]] = ("student",)
    needs: ClassVar[tuple[str, ...]] = ()
    builds: ClassVar[Mapping[str, Callable[[RoleContext], nn.Module]]] = {}
    source: ClassVar[str | type[Any]] = "astro_cli.training.clip_source:EncodedClips"
    credits: ClassVar[tuple[CreditForm, ...]] = ("sample",)
    wants_trajectory: ClassVar[bool] = False
    persistent: ClassVar[bool] = False
    excludes: ClassVar[tuple[Literal["ema", "relative"], ...]] = ()
    gaps: ClassVar[bool] = False
    widens: ClassVar[bool] = False
    sets: ClassVar[tuple[str, ...]] = ()
    shards: ClassVar[bool] = False

    def __init__(self, config: Config, run_context: RunContext) -> None:
        self.config, self.run_context = config, run_context
        self.warning = ""  # what is wrong with the step that has just ended; logged and shown

    @classmethod
    def source_class(cls) -> type[Any]:
        """The class of its source."""
        return resolve_name(cls.source) if isinstance(cls.source, str) else cls.source

    @classmethod
    def takes(cls, config: Any) -> tuple[CreditForm, ...]:
        """Forms of credit it can use with these keys; default `credits`."""
        return cls.credits

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        """Refuse what its own keys rule out elsewhere in the recipe, before anything is loaded; `key` is the stage's,
        "stages.nft".

        Raises:
            ValueError: "key: what is wrong, found, allowed".
        """

    @classmethod
    def rolled(cls, config: Any) -> int | None:
        """Latent frames of the videos that it rolls out itself; None: `video.frames`."""
        return None

    @classmethod
    def rewards(cls, config: Any) -> tuple[str, ...]:
        """Rewards that it scores itself, through `run_context.reward`; their scorers must be there before the run."""
        return ()

    @classmethod
    def features(cls, config: Any) -> tuple[str, ...]:
        """Features of frames that it looks at, through `run_context.features`; their weights must be there before the
        run."""
        return ()

    @classmethod
    def weight_files(cls, recipe: Recipe) -> list[NeededPart]:
        """Further files of weights that a stage reads; they must be there before the run, and decide what it is."""
        return []

    def prepare(self, batches: Callable[[str, int], Batch]) -> None:
        """Work before the first step, e.g. pairs from the teacher; `batches(use, size)` draws prompts for it."""

    def weigh(self, role: str, batch: Batch, size: int) -> Batch:
        """The batch of an update with what needs all of it, e.g. weights of mean 1; before it is split into parts of
        `size` samples and moved to the device. It is this process's share of the global batch.
        """
        return batch

    def loss(self, role: str, batch: Batch) -> LossOutput | Iterator[LossOutput]:
        """Scalar loss of one role on a batch, or several, each back-propagated and freed before the next is asked for.

        Gradients reach that role only; those of several losses add up. A generator must not yield inside of `no_grad`.
        """
        raise AssertionError(f"{type(self).__name__} trains no {role}")

    def after_step(self, step: int) -> dict[str, float]:
        """Bookkeeping after the optimiser steps of a step (moving averages, targets); returns metrics."""
        return {}

    def finish(self) -> None:
        """Work after the last step, e.g. a check, or weights another stage begins with."""

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors to save with a checkpoint besides networks and optimisers."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        assert not state

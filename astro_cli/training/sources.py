"""Where batches come from: the contract, and the sources of rendered frames and bare prompts.

Every draw is a function of (seed, stage, step, role, row), never of a loader's state.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import torch
from accelerate import Accelerator

from astro_cli.config.errors import RecipeError
from astro_cli.config.prompt_files import PromptFile
from astro_cli.core.rng import stream, stream_seed
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.shapes.grammar import DIRECTIONS, Scene, caption, complete_scene, random_scene
from astro_cli.shapes.render import FREE, Layout, World, random_layout, render
from astro_cli.spec import DataSpec, Recipe, StageSpec
from astro_cli.training.clip_samples import ClipSample
from astro_cli.training.distributed import own_rows
from astro_cli.training.executors import INLINE, Executor

CAPTION_DRAWS = 8  # captions drawn for each that is wanted, since some come twice


@dataclass(frozen=True)
class SourceContext:
    """What a stage's source is made of. `progress` shows slow work (what, done, total); `warn` prints what is left
    out. `executor` rolls out and scores the clips of RL."""

    stage: str
    spec: StageSpec
    recipe: Recipe
    run_context: RunContext
    backbone: Backbone
    accelerator: Accelerator
    progress: Callable[[str, int, int], None]
    warn: Callable[[str], None]
    executor: Executor = INLINE

    @property
    def every(self) -> dict[str, int]:
        """Cadence of each trained role."""
        return {role: optim.every for role, optim in self.spec.optim.items()}


class Source(Protocol):
    """Where a stage's batches come from: captions, clips, scored rollouts, pairs, scripts with prompt switches,
    sequences that go on.

    The trainer reads metrics, warning and samples after every step, and saves the state with each checkpoint.

    Attributes:
        tables: those of a stage's that it reads beside `data`: "experience", "pairs". Others are refused.
        metrics: of the last step, for the log.
        warning: what is wrong with the last step's batches, "" for nothing.
        samples: clips of the last step to be written into the run's folder.
    """

    tables: ClassVar[tuple[str, ...]]

    @property
    def metrics(self) -> Mapping[str, Any]: ...

    @property
    def warning(self) -> str: ...

    @property
    def samples(self) -> Sequence[ClipSample]: ...

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        """Refuse a recipe this source cannot serve, before anything is loaded; `key` is the stage's.

        Raises:
            ValueError: "key: what is wrong, found, allowed".
        """
        ...

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        """Read the files that it will draw from, before any weights.

        Raises:
            AstroError: a file that is missing or damaged, with the line.
        """
        ...

    @classmethod
    def make(cls, context: SourceContext) -> Self:
        """The source of a stage that begins."""
        ...

    def draw(self, use: str, size: int) -> Batch:
        """Samples for work before the first step, named by its use."""
        ...

    def batches(self, step: int, role: str) -> list[Batch]:
        """This process's share of the batches of a role's update in a step, one optimiser step each."""
        ...

    def stop(self) -> tuple[str, str] | None:
        """Why the run must end after the last step, and how to go on all the same; None where it goes on."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors to save with a checkpoint; none where batches are functions of the step."""
        ...

    def load_state(self, state: dict[str, torch.Tensor]) -> None: ...


class SeededSource(ABC):
    """A source whose batches are functions of (use, step, role): subclasses give `make` and `batch`."""

    context: SourceContext
    tables: ClassVar[tuple[str, ...]] = ()
    repeats: ClassVar[bool] = False  # whether a prompt may come several times in a batch
    metrics: Mapping[str, Any] = MappingProxyType({})
    warning = ""
    samples: Sequence[ClipSample] = ()

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        refuse_clips(stage, key)
        refuse_pans(stage, key)
        if not cls.repeats:
            refuse_samples(stage, key)

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        if stage.data.prompts is not None:
            read_prompts(Path(stage.data.prompts))

    def of(self, context: SourceContext) -> Self:
        """This source, as the one of a stage."""
        self.context = context
        return self

    @abstractmethod
    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        """`size` samples for one role's update in a step."""

    def draw(self, use: str, size: int) -> Batch:
        return self.batch(f"{self.context.stage}:{use}", 0, "prepare", size)

    def batches(self, step: int, role: str) -> list[Batch]:
        size = self.context.spec.batch
        rows = own_rows(self.context.accelerator, size)
        return [self.batch(self.context.stage, step, role, size).rows(rows.start, rows.stop)]

    def stop(self) -> tuple[str, str] | None:
        return None

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        assert not state


def refuse_clips(stage: StageSpec, key: str) -> None:
    """Refuse clips where the source reads none.

    Raises:
        ValueError: "key: what is wrong, found, allowed".
    """
    if stage.data.clips is not None:
        raise ValueError(f"{key}.data.clips: found {stage.data.clips!r}, expected none: {stage.kind} reads no clips")


def refuse_pans(stage: StageSpec, key: str) -> None:
    """Refuse panning cameras where the source renders no clips with captions.

    Raises:
        ValueError: "key: what is wrong, found, allowed".
    """
    if stage.data.pan:
        what = f"found {stage.data.pan}, expected 0: {stage.kind} renders no clips whose camera pans"
        raise ValueError(f"{key}.data.pan: {what}")


def refuse_samples(stage: StageSpec, key: str) -> None:
    """Refuse several samples of a prompt where the source draws one.

    Raises:
        ValueError: "key: what is wrong, found, allowed".
    """
    if stage.data.samples != 1:
        what = f"found {stage.data.samples}, expected 1: {stage.kind} draws each prompt once"
        raise ValueError(f"{key}.data.samples: {what}")


def sample_seeds(seed: int, use: str, step: int, role: str, size: int) -> list[int]:
    return [stream_seed(seed, use, step, role, row) for row in range(size)]


def draw_scene(seed: int, drop: float, pan: float = 0.0) -> tuple[Scene, str]:
    """A complete scene and its caption; the caption leaves out what the skewed prior filled in.

    Args:
        pan: chance that the camera pans, which the caption says.
    """
    rng = stream(seed, "scene")
    stated = random_scene(rng, drop)
    if pan:
        camera = stream(seed, "camera")
        if float(torch.rand((), generator=camera)) < pan:
            way = int(torch.randint(len(DIRECTIONS), (), generator=camera))
            stated = replace(stated, pan=DIRECTIONS[way])
    return complete_scene(stated, rng), caption(stated)


def layout_of(scenes: list[Scene], seeds: list[int], world: World = FREE) -> Layout:
    """Where the objects of scenes are, from the scenes' own seeds."""
    return random_layout(scenes, [stream(seed, "layout") for seed in seeds], world=world)


def render_scenes(
    scenes: list[Scene], seeds: list[int], frames: int, world: World = FREE, camera_BT2: torch.Tensor | None = None
) -> torch.Tensor:
    return render(scenes, layout_of(scenes, seeds, world), frames, camera_BT2=camera_BT2)


@dataclass
class FrameSource(SeededSource):
    """Rendered clips of `frames` frames, for the codec."""

    seed: int
    frames: int = 1
    world: World = FREE

    @classmethod
    def make(cls, context: SourceContext) -> FrameSource:
        frames = context.backbone.num_frames(context.spec.data.frames or 1)
        return cls(context.recipe.seed, frames, context.backbone.world).of(context)

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        scenes = [draw_scene(seed, 0.0)[0] for seed in seeds]
        return Batch(
            seeds,
            [""] * size,
            frames_BTCHW=render_scenes(scenes, seeds, self.frames, self.world),
            shared=stream_seed(self.seed, use, step, role),
        )


class PromptSource(SeededSource):
    """Prompts from the world's grammar, ever new or so many of them, or from a file with one prompt a line.

    Given lines come in a new order every epoch, each once. No line comes twice in a (global) batch that is no larger
    than their number, also where an epoch ends within it.

    Args:
        lines: the prompts there are; None: ever new ones of the grammar.
        every: cadence of the roles that draw prompts in some steps only; their epochs count those steps.
        samples: of each prompt in a batch, one after the other.
    """

    repeats: ClassVar[bool] = True

    def __init__(
        self,
        seed: int,
        encode_text: Callable[[list[str]], torch.Tensor],
        drop: float,
        lines: list[str] | None,
        every: Mapping[str, int] | None = None,
        samples: int = 1,
    ) -> None:
        self.seed, self.encode_text, self.drop, self.lines = seed, encode_text, drop, lines
        self.per_prompt = samples
        self.every = every or {}

    @classmethod
    def make(cls, context: SourceContext) -> PromptSource:
        data = context.spec.data
        text = (context.backbone.encode_text, data.drop, prompt_lines(data))
        return cls(context.recipe.seed, *text, context.every, data.samples).of(context)

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        super().check(recipe, stage, key)
        if recipe.backbone == "wan" and stage.data.prompts is None:
            raise ValueError(f"{key}.data.prompts: missing, training on Wan needs a text file with a prompt a line")
        if stage.data.captions is not None and stage.data.prompts is not None:
            what = f"found {stage.data.captions} beside data.prompts, give one of the two"
            raise ValueError(f"{key}.data.captions: {what}")

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        owners = seeds[:: self.per_prompt]
        if self.lines is None:
            drawn = [draw_scene(seed, self.drop)[1] for seed in owners]
        else:
            turn = step // self.every.get(role, 1)
            drawn = [self.lines[line] for line in shuffled(len(self.lines), len(owners), turn, self.seed, use, role)]
        prompts = [prompt for prompt in drawn for _ in range(self.per_prompt)][:size]
        return Batch(seeds, prompts, text_BMD=self.encode_text(prompts), shared=stream_seed(self.seed, use, step, role))


def prompt_lines(data: DataSpec) -> list[str] | None:
    """The prompts of a stage that has a list of them: its file's, or the first captions of the grammar, the same for
    every seed; None where they are ever new.

    Raises:
        RecipeError: missing or empty file, or more captions than the grammar gives.
    """
    if data.prompts is not None:
        return read_prompts(Path(data.prompts))
    if data.captions is None:
        return None
    lines = dict.fromkeys(
        draw_scene(stream_seed("captions", row), data.drop)[1] for row in range(CAPTION_DRAWS * data.captions)
    )
    if len(lines) < data.captions:
        raise RecipeError("data", "captions", f"found {data.captions}, expected at most {len(lines)}")
    return list(lines)[: data.captions]


def shuffled(count: int, size: int, turn: int, *name: object) -> list[int]:
    """The `turn`-th batch of `size` of `count` lines, which are permuted anew every epoch in the stream `name`; a
    function of its arguments alone.
    """
    places = range(turn * size, (turn + 1) * size)
    orders = {
        epoch: _epoch_order(count, size, epoch, *name) for epoch in range(places[0] // count, places[-1] // count + 1)
    }
    return [orders[place // count][place % count] for place in places]


def _epoch_order(count: int, size: int, epoch: int, *name: object) -> list[int]:
    """A permutation of the lines. Those in the unfinished last batch of the epoch before come last.

    It depends on earlier epochs, back to the last one that ended with a whole batch.
    """
    cycle = size // math.gcd(count, size)  # epochs until one ends with a batch
    order: list[int] = []
    for number in range(epoch - epoch % cycle, epoch + 1):
        drawn = torch.randperm(count, generator=stream(*name, "lines", number)).tolist()
        begun = set(order[count - min(count, number * count % size) :])
        order = [line for line in drawn if line not in begun] + [line for line in drawn if line in begun]
    return order


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, see `config.prompt_files`.

    Raises:
        RecipeError: missing or empty file, or a line with prompts in turn.
    """
    lines = PromptFile(path, RecipeError, "prompts").lines()
    many = next((line.number for line in lines if len(line.prompts) > 1), None)
    if many is not None:
        raise RecipeError(path, f"line {many}", "several prompts of one video, expected one: a clip is of one prompt")
    return [line.prompts[0] for line in lines]

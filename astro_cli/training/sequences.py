"""The source of streaming long tuning: long videos that go on from step to step, each with one change of prompt.

Every batch of every role is the next chunk of the same videos; after the last chunk new ones begin. Prompts, noise and
the frame of the switch are functions of (seed, stage, number of the sequence); the rest is state and goes into
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object

from astro_cli.config.errors import RecipeError, StreamError
from astro_cli.config.prompt_files import PromptFile
from astro_cli.core.rng import stream, stream_seed
from astro_cli.objectives.base import Batch
from astro_cli.objectives.long_tuning import Config
from astro_cli.recipe import resolve_kind
from astro_cli.rollout.long_sequence import LongSequence, VideoScript
from astro_cli.shapes.stories import switch_pair
from astro_cli.spec import Recipe, StageSpec
from astro_cli.training.clip_samples import ClipSample
from astro_cli.training.distributed import own_rows
from astro_cli.training.sources import SourceContext, refuse_clips, refuse_samples, sample_seeds, shuffled

PAIR_HINT = 'JSON lines, in a file that ends in .jsonl: {"prompts": ["...", "..."]}'


class SequenceSource:
    """Batches whose `sequences` make the chunk when the loss asks for it: one for each part that is back-propagated
    at once.
    """

    tables: ClassVar[tuple[str, ...]] = ()
    warning = ""
    samples: Sequence[ClipSample] = ()

    def __init__(self, context: SourceContext, config: Config) -> None:
        self.context, self.config = context, config
        self.plan = config.plan(context.recipe.video.frames)
        prompts = context.spec.data.prompts
        self.pairs = None if prompts is None else read_pairs(Path(prompts))
        self.number = -1  # of the sequences under way
        self.parts: list[LongSequence] = []
        self.metrics: dict[str, Any] = {}
        self._step = -1

    @classmethod
    def make(cls, context: SourceContext) -> SequenceSource:
        key = f"stages.{context.stage}.objective"
        config = resolve_kind("objectives", context.spec.objective, key)
        assert isinstance(config, Config)
        return cls(context, config)

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        refuse_clips(stage, key)
        refuse_samples(stage, key)
        for name, value in (("drop", stage.data.drop or None), ("captions", stage.data.captions)):
            if value is not None:
                what = f"found {value}, expected none: the prompts of long tuning come in pairs"
                raise ValueError(f"{key}.data.{name}: {what}")
        if recipe.backbone == "wan" and stage.data.prompts is None:
            what = "missing, long tuning on Wan needs a JSON lines file of prompts and the prompts they switch to"
            raise ValueError(f"{key}.data.prompts: {what}")

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        if stage.data.prompts is not None:
            read_pairs(Path(stage.data.prompts))

    def draw(self, use: str, size: int) -> Batch:
        seeds = sample_seeds(self.context.recipe.seed, f"{self.context.stage}:{use}", 0, "prepare", size)
        prompts = self._prompts(seeds, 0, use)[0]
        return Batch(seeds, prompts, text_BMD=self.context.backbone.encode_text(prompts))

    def batches(self, step: int, role: str) -> list[Batch]:
        """The next chunk of this process's videos."""
        context, size = self.context, self.context.spec.batch
        if not self.parts or self.parts[0].done:
            self.number += 1
            self.parts = [self._begin(script) for script in self._scripts()]
        with context.run_context.section("rollout"), context.run_context.autocast():
            for part in self.parts:
                part.enter()
        rows, first = own_rows(context.accelerator, size), self.parts[0]
        switched = first.start >= first.script.switch
        self._describe(step, role, first, switched)
        seeds = sample_seeds(context.recipe.seed, context.stage, step, role, size)[rows]
        prompts = self._pairs()[switched][rows]
        text = torch.cat([part.text_BMD for part in self.parts])
        shared = stream_seed(context.recipe.seed, context.stage, step, role)
        return [Batch(seeds, prompts, text_BMD=text, shared=shared, sequences=tuple(self.parts))]

    def _describe(self, step: int, role: str, first: LongSequence, switched: bool) -> None:
        """Where in the video each role's chunk of this step is, and where the prompt switches."""
        self.metrics = self.metrics if step == self._step else {}
        self._step = step
        self.metrics |= {
            "sequence/number": float(self.number),
            "sequence/switch": float(first.script.switch),
            f"sequence/{role}_start": float(first.start),
            f"sequence/{role}_switched": float(switched),
        }

    def _pairs(self) -> tuple[list[str], list[str]]:
        """First and second prompts of all processes' videos."""
        return self._prompts(self._seeds(), self.number, "sequence")

    def _seeds(self) -> list[int]:
        context = self.context
        return sample_seeds(context.recipe.seed, context.stage, self.number, "sequence", context.spec.batch)

    def _prompts(self, seeds: list[int], number: int, use: str) -> tuple[list[str], list[str]]:
        if self.pairs is None:
            drawn = [switch_pair(stream(seed, "pair"), self.config.event_only) for seed in seeds]
        else:
            name = (self.context.recipe.seed, self.context.stage, use)
            drawn = [self.pairs[line] for line in shuffled(len(self.pairs), len(seeds), number, *name)]
        return [first for first, _ in drawn], [second for _, second in drawn]

    def _scripts(self) -> list[VideoScript]:
        """Of the parts of this process's videos."""
        context = self.context
        rows, (first, second) = own_rows(context.accelerator, context.spec.batch), self._pairs()
        device, starts = context.run_context.device, self.plan.starts()[1:]
        draw = stream(context.recipe.seed, context.stage, "switch", self.number)
        switch = starts[int(torch.randint(len(starts), (), generator=draw))]
        seeds, size = self._seeds()[rows], (rows.stop - rows.start) // context.spec.accumulate
        scripts = []
        for begin in range(0, len(seeds), size):
            part = slice(begin, begin + size)
            texts = [context.backbone.encode_text(prompts[rows][part]).to(device) for prompts in (first, second)]
            scripts.append(VideoScript(seeds[part], (texts[0], texts[1]), switch, self.config.switch))
        return scripts

    def _begin(self, script: VideoScript) -> LongSequence:
        run_context = self.context.run_context
        with run_context.autocast(), run_context.roles.use("student") as student:
            return LongSequence(student, self.context.backbone, run_context.stream_spec(), self.plan, script)

    def stop(self) -> tuple[str, str] | None:
        return None

    def state(self) -> dict[str, torch.Tensor]:
        """The sequences of all processes; to be called by all of them."""
        own = dict[str, torch.Tensor]()
        for place, part in enumerate(self.parts):
            own |= {f"{place}.{name}": value for name, value in part.state().items()}
        count = self.context.accelerator.num_processes
        everyone = gather_object([own]) if count > 1 else [own]
        named = {"at": torch.tensor([self.number, len(everyone), len(self.parts)])}
        for process, tensors in enumerate(everyone):
            named |= {f"{process}.{name}": value for name, value in tensors.items()}
        return named

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        accelerator, run_context = self.context.accelerator, self.context.run_context
        self.number, processes, parts = state["at"].tolist()
        if processes != accelerator.num_processes:
            what = f"found sequences of {processes} processes, this run has {accelerator.num_processes}"
            raise StreamError("sequence", "processes", what, hint="resume with as many processes as before")
        self.parts = []
        scripts = self._scripts() if parts else []
        for place, script in enumerate(scripts):
            prefix = f"{accelerator.process_index}.{place}."
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            with run_context.autocast(), run_context.roles.use("student") as student:
                spec, backbone = run_context.stream_spec(), self.context.backbone
                self.parts.append(LongSequence.load(student, backbone, spec, self.plan, script, own))


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Prompts and the prompts they switch to: JSON lines of two prompts each, see `config.prompt_files`.

    Raises:
        RecipeError: missing or empty file, or a line without a second prompt or with a third.
    """
    lines = PromptFile(path, RecipeError, "prompts").lines()
    for line in lines:
        if len(line.prompts) != 2:
            what = f"found {len(line.prompts)} of a video, expected two: the first and the one it switches to"
            raise RecipeError(path, f"line {line.number}", what, hint=PAIR_HINT)
    return [(line.prompts[0], line.prompts[1]) for line in lines]

"""The Python API: load a student, stream videos from it, train it, evaluate it. The objects are those of the commands.

Dimensions: B video, T frame, H, W rows and columns, C colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from astro_cli.commands.limits import MOST_FRAMES, MOST_PROMPTS, MOST_SECONDS
from astro_cli.commands.progress import RunProgress
from astro_cli.commands.training_run import given, resolve
from astro_cli.config.arguments import one_of, positive, whole
from astro_cli.config.errors import PromptError, RecipeError, RecordError, StreamError, did_you_mean, warn
from astro_cli.config.seeds import LARGEST
from astro_cli.generate.arm import Arm, load_arm
from astro_cli.generate.given import clip, picture
from astro_cli.generate.plan import Video, parse_switches, place
from astro_cli.generate.stream import Blocks, Schedule, length_for
from astro_cli.media.pictures import FITS
from astro_cli.rollout.switching import SwitchRule
from astro_cli.training.build import pick_device
from astro_cli.training.run import prepare
from astro_cli.training.rundir import RunDir
from eval.records.store import Record
from eval.records.writer import RecordWriter
from eval.scoring import run as suite_run
from eval.suites.suite import list_suites
from eval.world.run import evaluate_arm, recorded
from eval.world.suites import WORLD_SUITES, world_suite

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DEVICES = ("auto", "cpu", "cuda")
RECACHES = ("none", "bidirectional", "block_causal")


def load_student(
    name: str | Path | None = None,
    *,
    recipe: str | None = None,
    lora: str | Sequence[str] = (),
    wan: str | Path | None = None,
    dtype: Literal["fp32", "bf16"] = "fp32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    cache: Mapping[str, Any] | None = None,
) -> Arm:
    """Weights with everything around them: network, text side, codec, sampler and cache. As `astro sample` loads them.

    Args:
        name: a packaged base ("shapes/causal_forcing", the default), a run folder, a weights file, a released
            checkpoint's name, or a hub id in the local Hugging Face cache. A multi-step teacher is loaded too.
        recipe: takes sizes, sampler and cache from this recipe instead of the weights' card; without a `name` also the
            student it starts from.
        lora: one or several adapters to merge, each as `SOURCE` or `SOURCE:STRENGTH`.
        wan: the Wan 2.1 folder with text encoder and VAE; default one below the checkpoints folder.
        dtype: of the transformer and of Wan's other parts.
        device: where it runs.
        cache: fields of `CacheSpec` that replace the card's, e.g. {"window": 12, "sink": 3}.

    Raises:
        CheckpointError: weights that are missing, damaged or of another model.
        RecipeError: a recipe, dtype, device or cache that is wrong, or no CUDA device where one is asked for.

    Example:
        student = load_student("shapes/causal_forcing")
    """
    one_of(RecipeError, "load_student", "dtype", dtype, DTYPES)
    one_of(RecipeError, "load_student", "device", device, DEVICES)
    adapters = [lora] if isinstance(lora, str) else list(lora)
    source = "shapes/causal_forcing" if name is None and recipe is None and wan is None else name
    return load_arm(
        None if source is None else str(source),
        recipe=recipe,
        lora=adapters,
        wan=None if wan is None else str(wan),
        dtype=DTYPES[dtype],
        device=pick_device(device),
        cache=cache,
    )


def stream(
    student: Arm,
    prompts: str | Sequence[str],
    *,
    seconds: float | None = None,
    frames: int | None = None,
    seed: int = 0,
    switches: str | Sequence[str] = (),
    recache: Literal["none", "bidirectional", "block_causal"] = "bidirectional",
    renew_sink: bool = False,
    image: str | Path | None = None,
    video: str | Path | None = None,
    fit: Literal["exact", "crop"] = "exact",
) -> Iterator[np.ndarray]:
    """Frames of one or several videos, block after block, while they are made: float arrays (B, T, H, W, C) in [0, 1].
    The frames are those of `astro sample` with the same options.

    T differs: Wan's first block has fewer frames. Time and memory per frame do not grow with the length.

    Args:
        student: of `load_student`; a multi-step teacher gives its whole clip as one block.
        prompts: of each video; they run together.
        seconds, frames: the length, in whole blocks that show at least so much; default as trained.
        seed: video i has the noise of seed + i.
        switches: one or several later prompts of all videos, "TIME:PROMPT" as `--switch` takes them, with TIME in
            frames or, as "4s", in seconds. A prompt takes over at the next start of a block.
        recache: how a switch recomputes the cached past: not at all, in one pass without a mask (as LongLive's
            released code), or block by block.
        renew_sink: let a switch recompute the sink too.
        image: a picture that is the first frame of every video; it comes first.
        video: a clip that every video continues, for `seconds` or `frames` more; its end comes first.
        fit: "crop" cuts the middle out of a picture or clip of another aspect, "exact" refuses it.

    Raises:
        PromptError: a prompt the text side cannot take, before anything is made.
        StreamError: a length, a seed, a switch or a way to recompute that cannot be.
        PictureFileError, VideoError: a picture or clip that is none, or that does not fit.

    Example:
        red, blue = "a large red circle moves right slowly", "a small blue square moves left fast"
        for block in stream(student, red, seconds=4, switches=[f"2s:{blue}"]):
            print(block.shape)
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise PromptError("prompts", "", "found none, expected one or more")
    seed = whole(StreamError, "stream", "seed", seed, 0, LARGEST - len(texts) + 1)
    if seconds is not None:
        seconds = positive(StreamError, "stream", "seconds", seconds, MOST_SECONDS)
    if frames is not None:
        frames = whole(StreamError, "stream", "frames", frames, 1, MOST_FRAMES)
    if seconds is not None and frames is not None:
        raise StreamError("seconds", f"{seconds:g}", "found frames too", hint="give one of them")
    one_of(StreamError, "stream", "recache", recache, RECACHES)
    if renew_sink and recache == "none":
        what = 'found True, expected False with recache="none": a sink is renewed by recomputing it'
        raise StreamError("stream", "renew_sink", what)
    one_of(StreamError, "stream", "fit", fit, FITS)
    if image is not None and video is not None:
        raise StreamError("image", str(image), "found video too", hint="give one of them")
    opening = picture(student, image, fit) if image is not None else clip(student, video, fit) if video else None
    length = length_for(student, seconds, frames, opening)
    requested = parse_switches([switches] if isinstance(switches, str) else switches, "switches")
    turns = place(requested, length, "switches")
    if turns and not student.streams:
        raise StreamError("switches", "", f"{student.name} is a multi-step teacher and takes none")
    for text in dict.fromkeys([*texts, *(text for _, text in turns)]):
        student.backbone.encode_text([text])
    student.check_fits(length.latents, len(texts))
    videos = [Video(text, seed + index, turns, "", opening) for index, text in enumerate(texts)]
    rule = SwitchRule(recache=recache, renew_sink=renew_sink)
    return _blocks(student, videos, length.latents, length.block, rule)


def _blocks(student: Arm, videos: list[Video], latents: int, block: int, rule: SwitchRule) -> Iterator[np.ndarray]:
    blocks, schedule = Blocks(student, videos, latents, rule), Schedule(videos, latents, block)
    if blocks.given is not None:
        yield blocks.frames(blocks.given)
    while not schedule.ended(blocks.frame):
        if (prompts := schedule.due(blocks.frame)) is not None:
            blocks.switch(prompts)
        yield blocks.frames(blocks.next_latents())


def train(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RunDir:
    """Run a recipe of `astro pretrain`, `distill`, `rl`, `long-tune`, `sft` or `prefer`. `load_student(run.path)` loads
    the result.

    Args:
        recipe: a recipe's name or file.
        overrides: "KEY=VALUE" as `--set` takes them.
        out: the run's folder; default runs/<recipe>-seed<seed>.
        steps: of the last stage, instead of the recipe's.
        seed: instead of the recipe's.
        resume: continue the run in the folder, to the same bits; a finished one is left as it is.
        progress: a progress bar and messages on stderr.

    Returns:
        The run's folder: `path`, `final` (weights), `metrics` (a JSON line per step).

    Raises:
        AstroError: a wrong recipe, missing weights, a folder of another run, or a run that failed.

    Example:
        run = train("astrolabe_causal_shapes", overrides=["stages.nft.steps=20"], seed=1)
    """
    name = str(recipe)
    loaded = resolve(name, None, list(overrides), steps, seed)
    folder = Path(out) if out is not None else Path("runs") / f"{loaded.name}-seed{loaded.seed}"
    watcher = RunProgress() if progress else nullcontext(_Silent())
    run = prepare(loaded, folder)
    run.train(given(name, list(overrides)), resume=resume, progress=watcher, say=_say if progress else _hear_nothing)
    return run.folder


class _Silent:
    """A `Watcher` that shows only warnings."""

    def stage(self, name: str, start: int, steps: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None:
        if "warning" in row:
            warn(f"step {row['step']}: {row['warning']}")

    def work(self, what: str, done: int, total: int) -> None: ...
    def warn(self, text: str) -> None:
        warn(text)


def _say(line: str) -> None:
    RunProgress().console.print(line, soft_wrap=True)


def _hear_nothing(line: str) -> None:
    if line.startswith("warning: "):
        warn(line.removeprefix("warning: "))


def evaluate(
    subject: Arm | str | Path,
    suite: str = "shapes",
    *,
    seed: int = 0,
    prompts: int | None = None,
    name: str = "",
    metrics: Sequence[str] = (),
    results: str | Path = "results",
) -> dict[str, Record]:
    """Score a student of the embedded world, or a folder of videos, under a suite of `astro eval`.

    What is recorded of the same weights, prompts and protocol is not scored again.

    Args:
        subject: for `shapes` and the suites whose names begin so an arm of `load_student`, or what it takes; for all
            other suites a folder of videos.
        suite: its name (`astro eval list`).
        seed: of the noise; a tuned run has its training seed. For videos: of the records.
        prompts: the first so many prompts only; default the suite's own number.
        name: of the arm in the records of videos; default the folder's. An arm has its own.
        metrics: of a suite of videos only these; default all.
        results: folder of the records.

    Returns:
        The newest record of every metric: `scores` (one per prompt, None where it does not apply), `mean`, `protocol`.

    Raises:
        RecordError: no such suite, a seed or number of prompts that cannot be, or records that do not go together.
        AstroError: whatever else the user can cause. What a suite of videos could not score is a warning.

    Example:
        means = {key: record.mean for key, record in evaluate(student, "shapes", prompts=16).items()}
    """
    suites = [*WORLD_SUITES, *list_suites()]
    if suite not in suites:
        raise RecordError("evaluate", str(suite), "no such suite", hint=did_you_mean(str(suite), suites))
    seed = whole(RecordError, "evaluate", "seed", seed, 0, LARGEST)
    if prompts is not None:
        prompts = whole(RecordError, "evaluate", "prompts", prompts, 1, MOST_PROMPTS)
    if suite in WORLD_SUITES:
        return _evaluate_arm(subject, suite, seed, prompts, Path(results), (name, metrics))
    if isinstance(subject, Arm):
        hint = f"write its videos with `astro sample`, then name the folder; or one of {', '.join(WORLD_SUITES)}"
        raise RecordError("evaluate", suite, "scores a folder of videos, found a student", hint=hint)
    folder = Path(subject)
    arm = name or folder.resolve().name
    request = suite_run.Request(suite, folder, arm, Path(results), seed, tuple(metrics), limit=prompts)
    report = suite_run.evaluate(request, suite_run.Progress())
    for scorer, lacks in report.not_run.items():
        warn(f"not run: {scorer}: needs {'; '.join(lacks)}")
    for failure in report.failures:
        warn(f"failed: {failure.video}: {failure.scorer}: {failure.what}")
    writer = RecordWriter(Path(results), suite, "wan", arm, seed, "", "", "")
    own = [
        record for record in writer.existing(limited=prompts is not None) if (record.arm, record.seed) == (arm, seed)
    ]
    return {record.metric: record for record in own}


def _evaluate_arm(
    subject: Arm | str | Path,
    suite: str,
    seed: int,
    prompts: int | None,
    results: Path,
    other: tuple[str, Sequence[str]],
) -> dict[str, Record]:
    if any(other):
        raise RecordError(
            "evaluate", suite, "scores all metrics of an arm under its own name: leave name and metrics out"
        )
    arm, chosen = subject if isinstance(subject, Arm) else load_arm(str(subject)), world_suite(suite)
    own, count = seed if arm.seed is None else arm.seed, chosen.prompts if prompts is None else prompts
    evaluate_arm(arm, own, count, results, lambda done, total: None, chosen)
    return recorded(arm, own, count, results, chosen)

"""`astro study build`: the page of a human study. Owns the options, and makes the clips of arms that are weights."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from astro_cli.commands.console import loading, plain_column, plain_console
from astro_cli.commands.eval_annotations import parse_scale
from astro_cli.config.errors import OutputError

if TYPE_CHECKING:
    from eval.contract import Sample

NAMED = re.compile(r"([\w.-]+)=(.+)")
WORD = re.compile(r"[\w.-]+")
CRITERION = "overall"
OF_WEIGHTS = ("resolved.json", "student.safetensors", "final")  # in the folder of a run
MOST_CRITERIA, LONGEST_SCALE = 8, 11
LARGEST_SEED = 2**31 - 1
Judged = Literal["rank", "gsb", "likert"]

study_app = typer.Typer(
    name="study",
    no_args_is_help=True,
    help="Ask people which clips are better.\n\nExample: astro study build base tuned --prompts prompts.txt",
)


@study_app.callback()
def study() -> None:
    """Ask people which clips are better.

    Example: astro study build base tuned --prompts prompts.txt
    """


@study_app.command("build")
def build(
    arms: Annotated[
        list[str],
        typer.Argument(
            metavar="ARM...",
            help="Folders of videos, or weights that make them here; NAME=ARM gives a name.",
        ),
    ],
    prompts: Annotated[
        Path,
        typer.Option("--prompts", help="Text (a prompt a line), .csv, or JSON lines with prompts in turn."),
    ],
    mode: Annotated[
        Judged, typer.Option("--mode", help="Put all arms in order, compare two at a time, or score each.")
    ] = "rank",
    criteria: Annotated[
        list[str] | None, typer.Option("--criterion", "-c", help="What is judged, repeatable. Default: overall.")
    ] = None,
    scale: Annotated[
        str, typer.Option("--scale", metavar="LOW-HIGH", help="Lowest and highest score of --mode likert.")
    ] = "1-5",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the random orders.")] = 0,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Which clip is better?",
    clips: Annotated[
        Path | None,
        typer.Option(help="Also copy the clips here: `astro prefer` reads answers of --mode gsb that lie in it."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("study.html"),
) -> None:
    """Write one HTML page where people judge the arms' clips side by side: unnamed, shuffled, played together.

    The page holds its clips and loads nothing. Raters send back the file of answers it saves, which `astro eval
    rank|gsb|likert` reads.

    Example: astro study build base tuned --prompts prompts.txt --mode gsb --criterion motion --clips clips
    """
    from astro_cli.generate.plan import stories
    from eval.human.trials import HumanStudy, StudyError, match, shuffled

    texts = stories(None, prompts, ())
    judged = _criteria(criteria)
    low, high = parse_scale(scale)
    if high - low >= LONGEST_SCALE:
        raise StudyError("--scale", scale, f"expected at most {LONGEST_SCALE} scores")
    if out.is_dir():
        raise OutputError(out, "--out", "is a folder, expected the name of a page")
    named = _named(arms)
    console = plain_console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch:
        videos: dict[str, list[Sample]] = {}
        for name, source in named.items():
            folder = Path(source) if _is_folder(source) else _sampled(source, texts, Path(scratch) / name)
            with loading(name):
                videos[name] = _samples(folder)
        items = match(texts, videos)
        names = tuple(videos)
        made = HumanStudy(title, mode, names, judged, (low, high), shuffled(items, names, mode, seed))
        from eval.report.human_study import copy_clips, playable, write_study

        columns = (plain_column(), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("clips", total=len(made.trials))
            files = playable(made, Path(scratch), lambda: progress.advance(bar))
        for note in _differences(items):
            console.print(note, soft_wrap=True)
        write_study(out, made, files)
        if clips is not None:
            copy_clips(made, files, clips)
    size = out.stat().st_size / 1e6
    console.print(f"{out}: {len(made.trials)} trials of {len(names)} arms, {size:.1f} MB", soft_wrap=True)


def _criteria(given: Sequence[str] | None) -> tuple[str, ...]:
    """The criteria without blanks around.

    Raises:
        StudyError: an empty one, one twice, or too many.
    """
    from eval.human.trials import StudyError

    names = tuple(" ".join(name.split()) for name in given or (CRITERION,))
    if not all(names) or len(set(names)) < len(names) or len(names) > MOST_CRITERIA:
        what = f"found {', '.join(map(repr, names))}, expected at most {MOST_CRITERIA} different ones"
        raise StudyError("--criterion", "", what, hint="for example: --criterion motion --criterion 'visual quality'")
    return names


def _named(arms: Sequence[str]) -> dict[str, str]:
    """Arms by name: the one given, else the last part of the path.

    Raises:
        StudyError: two of one name, or none that a folder can have.
    """
    from eval.human.trials import StudyError

    named: dict[str, str] = {}
    for arm in arms:
        match = None if Path(arm).exists() else NAMED.fullmatch(arm)
        name, source = (match[1], match[2]) if match else (Path(arm).resolve().name, arm)
        if not WORD.fullmatch(name) or name in (".", ".."):
            raise StudyError("ARM", arm, f"its name is {name!r}, expected letters, digits, - _ .", hint="give NAME=ARM")
        if name in named:
            raise StudyError("ARM", arm, f"a second arm of the name {name!r}", hint=f"name it: {name}2={source}")
        named[name] = source
    return named


def _is_folder(source: str) -> bool:
    """Whether an arm is a folder of videos; a run's folder is weights."""
    return Path(source).is_dir() and not any((Path(source) / name).exists() for name in OF_WEIGHTS)


def _samples(folder: Path) -> list[Sample]:
    from eval.inputs.samples import load

    return load(folder)


def _sampled(source: str, texts: list[list[str]], folder: Path) -> Path:
    """Streams the prompts from weights, as `astro sample --prompts` does: prompt i with seed i."""
    from astro_cli.commands.sample_run import Studio
    from astro_cli.generate.arm import load_arm
    from astro_cli.generate.plan import plan
    from astro_cli.generate.stream import length_for
    from astro_cli.rollout.switching import SwitchRule

    with loading(source):
        arm = load_arm(source)
    length = length_for(arm, None, None)
    studio = Studio(arm, length, SwitchRule(), folder, {})
    studio.make(plan(texts, None, 0, [], length, studio.settings()), 1)
    return folder


def _differences(items: Sequence[object]) -> list[str]:
    """What raters could tell the arms by."""
    from eval.human.trials import StudyItem

    notes = []
    for what in ("length", "size"):
        unlike = 0
        for item in items:
            assert isinstance(item, StudyItem)
            infos = [sample.info for sample in item.clips.values()]
            facts = {round(info.seconds, 2) if what == "length" else (info.width, info.height) for info in infos}
            unlike += len(facts) > 1
        if unlike:
            notes.append(f"note: {unlike} of {len(items)} prompts have clips of more than one {what}")
    return notes

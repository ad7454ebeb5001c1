"""`astro reproduce`: a paper's study from end to end, base -> RL -> evaluation -> tables, figures and page.

Owns the options and what a user sees; `eval.studies.study_run` owns the order of the steps.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from astro_cli.commands.console import echo, loading, plain_console
from astro_cli.commands.evaluate import evaluate_arms
from astro_cli.commands.grid_progress import run_grid
from astro_cli.commands.limits import MOST_JOBS
from astro_cli.commands.training_run import train_on_cores
from astro_cli.config.errors import RecipeError, did_you_mean
from astro_cli.config.seeds import parse_seeds
from astro_cli.core import threads
from eval.studies.catalog import STUDIES

if TYPE_CHECKING:
    from astro_cli.spec import Recipe
    from eval.papers.ablation import Job
    from eval.report.study import WrittenStudy
    from eval.studies.grid_run import GridRun

QUICK_PROMPTS = 96


class _Steps:
    """The study's steps with progress bars on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def train(self, recipe: Recipe, name: str, overrides: list[str], run: Path) -> None:
        train_on_cores(recipe, name, overrides, run, resume=(run / "resolved.json").is_file())

    def evaluate(
        self, arms: list[str], seeds: list[int], prompts: int, results: Path, suite: str, *, brief: bool = False
    ) -> None:
        evaluate_arms(arms, seeds, prompts, results, suite, brief=brief)

    def run_grid(self, grid: GridRun, planned: list[Job], jobs: int) -> None:
        run_grid(grid, planned, jobs, self.console)


def reproduce(
    paper: Annotated[str, typer.Argument(help="Paper: astrolabe, reward-forcing, delta-forcing, teleboost or aapt.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="One base, one seed, fewer prompts: minutes instead of hours.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Comma-separated training seeds of the full study.")] = "0,1,2",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, max=MOST_JOBS, help="Runs of the full study at a time. Default: one per core."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the results. Default: results/<paper>.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Train every run for this many steps: whether all works here, not a result."),
    ] = None,
    stages: Annotated[
        bool,
        typer.Option(
            "--stages", help="Train the paper's stages one after the other, a row of a table for each: teleboost."
        ),
    ] = False,
    until_decided: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS",
            help="After the study, add seeds to the undecided claims that are settled at the least cost, for so long.",
        ),
    ] = None,
) -> None:
    """Train, evaluate and render a paper's tables and figures on the embedded world; what is finished already is kept,
    so it resumes.

    Example: astro reproduce astrolabe --quick
    """
    if until_decided is not None and (quick or stages or not 0 < until_decided < math.inf):
        value = "with --quick" if quick else "with --stages" if stages else f"{until_decided:g}"
        hint = "leave --quick and --stages out, for example: --until-decided 2"
        raise RecipeError("--until-decided", "", f"found {value}, expected hours above 0 of a full study", hint=hint)
    if paper not in STUDIES:
        raise RecipeError("reproduce", paper, "no such study", hint=did_you_mean(paper, STUDIES))
    chosen = STUDIES[paper]
    if stages and (quick or chosen.staged is None):
        have = ", ".join(name for name, study in STUDIES.items() if study.staged)
        what = "it with --quick, expected the full study" if quick else f"{paper}, expected a paper with stages: {have}"
        raise RecipeError("--stages", "", f"found {what}", hint=f"astro reproduce {have} --stages")
    if stages:
        chosen = chosen.stages()
    default = Path("results") / (f"{paper}-stages" if stages else paper)
    console, folder, began = plain_console(stderr=True), out or default, time.monotonic()
    with loading(f"the study of {paper}"):
        from eval.studies.study_run import StudyRun

        study = StudyRun(paper, chosen, folder, _Steps(console), steps)
    written = (
        study.quick(QUICK_PROMPTS) if quick else study.full(parse_seeds(seeds), jobs or threads.cores(), until_decided)
    )
    console.print(f"finished in {(time.monotonic() - began) / 60:.1f} min. Results: {folder}/", soft_wrap=True)
    _print_verdicts(written)


def _print_verdicts(written: WrittenStudy) -> None:
    """What the study says, claim by claim, and the page that shows it."""
    from eval.renderers.headline import headline_lines

    for line in headline_lines(written.verdicts):
        echo(line)
    echo(f"page: {written.page}")

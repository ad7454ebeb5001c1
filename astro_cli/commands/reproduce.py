"""`astro reproduce`: a paper's study from end to end, base -> RL -> evaluation -> tables, figures and page.

Owns the order of the steps.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from astro_cli.commands.console import echo, plain_console
from astro_cli.commands.evaluate import evaluate_arms
from astro_cli.commands.grid_progress import run_grid
from astro_cli.commands.limits import MOST_JOBS
from astro_cli.commands.training_run import train
from astro_cli.config.errors import RecipeError, did_you_mean
from astro_cli.config.seeds import parse_seeds
from astro_cli.core import threads
from eval.studies.catalog import STUDIES, Study

if TYPE_CHECKING:
    from eval.report.study import WrittenStudy

QUICK_PROMPTS = 96
TIMED = "shapes"  # the suite that measures frames per second


def reproduce(
    paper: Annotated[str, typer.Argument(help="Paper: astrolabe.")],
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
    if until_decided is not None and (quick or not 0 < until_decided < math.inf):
        value = "with --quick" if quick else f"{until_decided:g}"
        raise RecipeError("--until-decided", "", f"found {value}, expected hours above 0 of a full study")
    if paper not in STUDIES:
        raise RecipeError("reproduce", paper, "no such study", hint=did_you_mean(paper, STUDIES))
    console, folder, began = plain_console(stderr=True), out or Path("results") / paper, time.monotonic()
    study = STUDIES[paper]
    written = (
        _quick(paper, study, folder, console)
        if quick
        else _full(paper, study, parse_seeds(seeds), jobs or threads.cores(), folder, console, until_decided)
    )
    console.print(f"finished in {(time.monotonic() - began) / 60:.1f} min. Results: {folder}/", soft_wrap=True)
    _print_verdicts(written)


def _print_verdicts(written: WrittenStudy) -> None:
    """What the study says, claim by claim, and the page that shows it."""
    from eval.renderers.headline import headline_lines

    for line in headline_lines(written.verdicts):
        echo(line)
    echo(f"page: {written.page}")


def _quick(paper: str, study: Study, folder: Path, console: Console) -> WrittenStudy:
    """The first pair at one seed, in this process."""
    from astro_cli.recipe import load_recipe
    from eval.report.study import write_study

    base, recipe_name = study.pairs[0]
    recipe = load_recipe(recipe_name, ["seed=0"], "rl")
    run = folder / "runs" / f"{recipe.name}-seed0"
    console.print(f"{recipe.name}, seed 0: reinforcement learning on {base}")
    train(recipe, recipe_name, ["seed=0"], run, resume=(run / "resolved.json").is_file())
    console.print(f"evaluating {base} and its tuned student on {QUICK_PROMPTS} held-out prompts")
    evaluate_arms([base, str(run)], [0], QUICK_PROMPTS, folder)
    return write_study(paper, study.tables[:1], {base: [run]}, {TIMED: QUICK_PROMPTS}, folder)


def _full(
    paper: str,
    study: Study,
    seeds: list[int],
    jobs: int,
    folder: Path,
    console: Console,
    until_decided: float | None = None,
) -> WrittenStudy:
    """Every grid, one process per run; then frames per second on the machine that is idle again, tables, figures,
    page.
    """
    from eval.papers.ablation import load_grid, merge, plan
    from eval.report.paper_figures import pictures
    from eval.report.study import study_records, write_study
    from eval.studies.grid_run import GridRun, core_seconds
    from eval.world.suites import WORLD_SUITES

    runs = folder / "runs"
    planned = merge([plan(load_grid(name), seeds, runs, [], None) for name in study.grids])
    run_grid(GridRun(folder, folder / "logs"), planned, jobs, console)
    if until_decided is not None:
        _more_seeds(paper, study, seeds, jobs, folder, console, until_decided)
    tuned: dict[str, list[Path]] = {}
    for base, recipe in study.pairs:
        tuned[base] = [runs / f"{recipe}-seed{seed}" for seed in seeds]
    prompts = {name: suite.prompts for name, suite in WORLD_SUITES.items()}
    evaluate_arms(
        [*tuned, *(str(run) for paths in tuned.values() for run in paths)], seeds, prompts[TIMED], folder, TIMED
    )
    drawn = []
    for picture in pictures(paper, study.pairs, runs, study_records(folder, prompts)):
        path = folder / "figures" / picture.name
        # The short sheets are written with their clips.
        if not picture.name.startswith("sheet_short") and picture.draw(path).written:
            console.print(f"wrote {picture.name}", soft_wrap=True)
            drawn.append(path)
    spent = ", ".join(f"{what} {seconds / 60:.0f} min" for what, seconds in core_seconds(folder / "logs").items())
    console.print(f"time of one core: {spent}", soft_wrap=True)
    return write_study(paper, study.tables, tuned, prompts, folder, drawn)


def _more_seeds(
    paper: str, study: Study, seeds: list[int], jobs: int, folder: Path, console: Console, hours: float
) -> None:
    """Seeds for undecided claims, for so many hours."""
    from eval.papers.ablation import Job, load_grid, merge, plan
    from eval.papers.claims import Verdict, load_claims
    from eval.papers.verdicts import evaluate
    from eval.report.study import study_records
    from eval.studies.grid_run import GridRun
    from eval.studies.until_decided import Planner, Round, costs, run_until_decided
    from eval.world.suites import WORLD_SUITES

    runs, ends = folder / "runs", time.monotonic() + hours * 3600
    claims, prompts = load_claims(paper), {name: suite.prompts for name, suite in WORLD_SUITES.items()}

    def planned(seed: int) -> list[Job]:
        return merge([plan(load_grid(name), [seed], runs, [], None) for name in study.grids])

    def verdicts() -> list[Verdict]:
        return evaluate(claims, study_records(folder, prompts))

    def run(chosen: Round) -> None:
        console.print(
            f"{chosen.claim}: seed {chosen.jobs[0].seed} of {len(chosen.jobs)} arms; about {chosen.further} more seeds "
            "would decide it",
            soft_wrap=True,
        )
        run_grid(GridRun(folder, folder / "logs"), chosen.jobs, jobs, console)

    def planner() -> Planner:
        return Planner(seeds, planned, costs(folder / "logs"))

    why = run_until_decided(verdicts, planner, jobs, lambda: ends - time.monotonic(), run)
    console.print(f"no more seeds: {why}", soft_wrap=True)

"""`astro ablate`: trains and evaluates the rows of a published ablation; goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from astro_cli.commands.console import loading, plain_console
from astro_cli.commands.grid_progress import run_grid
from astro_cli.commands.limits import MOST_JOBS, MOST_PROMPTS
from astro_cli.commands.training_run import SetOption
from astro_cli.config.seeds import parse_seeds

if TYPE_CHECKING:
    from eval.papers.ablation import Job


TABLES = (
    "astrolabe-bases (Tables 1 to 3), astrolabe-4a, -4b, -4c, -beta, -adaptive or -released; reward-forcing-1 or -3; "
    "delta-forcing; teleboost-2, -4, -7, -9, -clips, -i2v or -stages; aapt."
)


def ablate(
    table: Annotated[str, typer.Argument(help=TABLES)],
    seeds: Annotated[
        str, typer.Option(help="Comma-separated training seeds; the rows share them, so they are paired.")
    ] = "0",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=MOST_JOBS, help="Runs at a time; they share the cores.")
    ] = 1,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_PROMPTS, help="Held-out prompts of each evaluation. Default: the suites' own numbers."
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Folder of the records, which `astro table` reads; logs go to <results>/logs.")
    ] = Path("results"),
    runs: Annotated[
        Path, typer.Option(help="Folder of the training runs; tables share the rows they have in common.")
    ] = Path("runs"),
    set_: SetOption = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Epochs per run, instead of the recipes'.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Run the rows of an ablation table as a grid of recipes and seeds, evaluate them, and keep what is finished.

    Frames per second are not measured beside other runs: `astro eval shapes --arm ...` does it afterwards, and `astro
    reproduce` for Table 1.

    Example: astro ablate astrolabe-4c --seeds 0,1,2 --jobs 2
    """
    console = plain_console(stderr=True)
    with loading(table):
        from eval.papers.ablation import load_grid, plan
        from eval.studies.grid_run import GridRun

        grid = load_grid(table)
        planned = plan(grid, parse_seeds(seeds), runs, set_ or [], steps)
    if dry_run:
        show_plan(table, grid.title, planned)
        return
    run_grid(GridRun(results, results / "logs" / table, prompts, set_ or [], steps), planned, jobs, console)


def show_plan(table: str, title: str, planned: list[Job]) -> None:
    """The grid on stdout, one row per run."""
    shown = Table("row", "seed", "recipe or arm", "training", "run", title=f"{table}: {title}")
    for job in planned:
        name, state, folder = (job.recipe.name, job.state, job.arm) if job.recipe else (job.arm, "none", "")
        shown.add_row(job.label, str(job.seed), name, state, folder)
    plain_console(width=200).print(shown)

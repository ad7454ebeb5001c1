"""What `ablate` and `reproduce` show of a grid of runs: a bar, a line per run that ends, what failed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from astro_cli.commands.console import plain_column, resumable
from astro_cli.config.errors import EXIT_RUN

if TYPE_CHECKING:
    from eval.papers.ablation import Job
    from eval.studies.grid_run import GridRun


def run_grid(grid: GridRun, planned: list[Job], jobs: int, console: Console) -> None:
    """Run all jobs, `jobs` at a time, and say what is done and what failed.

    Raises:
        Exit: something failed.
    """
    columns = (plain_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    kept = "finished runs and checkpoints are kept"
    with resumable(kept), Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("runs", total=len(planned))

        def ended(number: int, job: Job, why: str) -> None:
            progress.advance(bar)
            console.print(f"{number}/{len(planned)}  {job.name}  {'failed' if why else 'done'}", soft_wrap=True)

        failed = grid.run(planned, jobs, ended)
    report(planned, failed, grid.results, console)


def report(planned: list[Job], failed: list[tuple[Job, str]], results: Path, console: Console) -> None:
    """Say what is done and what failed.

    Raises:
        Exit: something failed.
    """
    console.print(
        f"{len(planned) - len(failed)} of {len(planned)} done; records in {results / 'records'}", soft_wrap=True
    )
    for job, why in failed:
        console.print(f"failed: {job.name}: {why}", soft_wrap=True)
    if failed:
        raise typer.Exit(EXIT_RUN)

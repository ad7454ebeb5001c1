"""`astro ablate`: trains and evaluates the rows of a published ablation, one process per run; goes on where it was stopped. Owns the processes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from astro_cli.commands.console import plain_column, plain_console
from astro_cli.commands.evaluate import parse_seeds
from astro_cli.commands.training_run import SetOption
from astro_cli.config.errors import EXIT_RUN, AstroError

if TYPE_CHECKING:
    from eval.ablation import Job

TAIL = 3  # lines of a failed run's log that are shown


def ablate(
    table: Annotated[str, typer.Argument(help="astrolabe-4a, astrolabe-4b, astrolabe-4c, astrolabe-beta or astrolabe-adaptive.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated training seeds; the rows share them, so they are paired.")] = "0",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time, each on one thread.")] = 1,
    prompts: Annotated[int, typer.Option(min=1, help="Held-out prompts of the evaluation.")] = 256,
    results: Annotated[Path, typer.Option(help="Folder of the records, which `astro table` reads; logs go to <results>/logs.")] = Path("results"),
    runs: Annotated[Path, typer.Option(help="Folder of the training runs; tables share the rows they have in common.")] = Path("runs"),
    set_: SetOption = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Epochs per run, instead of the recipes'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Run the rows of an ablation table as a grid of recipes and seeds, evaluate them, and keep what is finished.

    Example: astro ablate astrolabe-4c --seeds 0,1,2 --jobs 2
    """
    from eval.ablation import load_grid, plan

    grid, console = load_grid(table), plain_console(stderr=True)
    planned = plan(grid, parse_seeds(seeds), runs, set_ or [], steps)
    if dry_run:
        show_plan(table, grid.title, planned)
        return
    runner = _Runner(results, table, prompts, set_ or [], steps)
    failed = runner.run(planned, jobs, console)
    console.print(f"{len(planned) - len(failed)} of {len(planned)} done; records in {results / 'records'}", soft_wrap=True)
    for job, why in failed:
        console.print(f"failed: {job.name}: {why}", soft_wrap=True)
    if failed:
        raise typer.Exit(EXIT_RUN)


def show_plan(table: str, title: str, planned: list[Job]) -> None:
    """The grid on stdout, one row per run."""
    shown = Table("row", "seed", "recipe or arm", "training", "run", title=f"{table}: {title}")
    for job in planned:
        name, state, folder = (job.recipe.name, job.state, job.arm) if job.recipe else (job.arm, "none", "")
        shown.add_row(job.label, str(job.seed), name, state, folder)
    plain_console(width=200).print(shown)


class _Runner:
    """Runs jobs in threads, each of which waits for one process at a time."""

    def __init__(self, results: Path, table: str, prompts: int, overrides: list[str], steps: int | None) -> None:
        self.results, self.logs = results, results / "logs" / table
        self.prompts, self.overrides, self.steps = prompts, overrides, steps
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(self, planned: list[Job], jobs: int, console: Console) -> list[tuple[Job, str]]:
        """Run all; a failure stops no other. Returns the failed ones, each with the end of its log."""
        failed: list[tuple[Job, str]] = []
        columns = (plain_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress, ThreadPoolExecutor(jobs) as pool:
            bar = progress.add_task("runs", total=len(planned))
            futures = {pool.submit(self._one, job): job for job in planned}
            try:
                for number, future in enumerate(as_completed(futures), start=1):
                    job, why = futures[future], future.result()
                    if why:
                        failed.append((job, why))
                    progress.advance(bar)
                    console.print(f"{number}/{len(planned)}  {job.name}  {'failed' if why else 'done'}", soft_wrap=True)
            finally:
                self._stop()
        return failed

    def _stop(self) -> None:
        self.stopped = True
        for process in list(self.running):
            process.terminate()

    def _one(self, job: Job) -> str:
        """Train if need be, evaluate, record what training measured; returns what went wrong, or nothing."""
        from eval.training_records import record_training

        log = self.logs / f"{job.name.replace('/', '-').replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        commands = [] if job.recipe is None or job.state == "finished" else [self._training(job)]
        evaluation = ["eval", "shapes", "--arm", job.arm, "--seeds", str(job.seed), "--prompts", str(self.prompts), "--results", str(self.results)]
        with log.open("wb") as file:
            for arguments in [*commands, evaluation]:
                if self.stopped:
                    return "stopped"
                if code := self._call(arguments, file.fileno()):
                    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    return f"exit code {code}, see {log}: " + " | ".join(lines[-TAIL:])
        try:
            if job.recipe is not None:
                record_training(Path(job.arm), self.results)
        except AstroError as error:
            return str(error).replace("\n", " | ")
        return ""

    def _training(self, job: Job) -> list[str]:
        assert job.recipe is not None
        sets = [argument for override in self.overrides for argument in ("--set", override)]
        steps = [] if self.steps is None else ["--steps", str(self.steps)]
        resume = ["--resume"] if job.state == "started" else []
        return [job.recipe.command, "--recipe", job.recipe.name, "--seed", str(job.seed), "--out", job.arm, *sets, *steps, *resume]

    def _call(self, arguments: list[str], output: int) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "astro_cli", *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.running.add(process)
        try:
            return process.wait()
        finally:
            self.running.discard(process)

"""`astro figures`: a paper's figures from the runs and records that are there.

Draws through `eval.report.paper_figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from astro_cli.commands.console import plain_column, plain_console
from astro_cli.commands.table import DEFAULT_RESULTS, read_records
from astro_cli.config.errors import RecordError, did_you_mean
from eval.studies.catalog import STUDIES

if TYPE_CHECKING:
    from eval.report.paper_figures import Missing

DEFAULT_RUNS = Path("runs")


def figures(
    paper: Annotated[str, typer.Argument(help="Paper: astrolabe, reward-forcing, delta-forcing, teleboost or aapt.")],
    runs: Annotated[
        Path, typer.Option("--runs", help="Folder of the training runs, named <recipe>-seed<N>.")
    ] = DEFAULT_RUNS,
    results: Annotated[
        Path, typer.Option("--results", help="Folder whose records/*.jsonl are read.")
    ] = DEFAULT_RESULTS,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pictures.")] = DEFAULT_RESULTS / "figures",
    sheets: Annotated[
        bool, typer.Option("--sheets/--no-sheets", help="Contact sheets too: they generate videos, a minute per base.")
    ] = True,
) -> None:
    """Draw a paper's figures: what training gained per base and per ablation, differences of what was measured, contact
    sheets of base and tuned student.

    Every picture shows the finished runs and the records there are. Where no curve is kept it shows what the runs ended
    with, and says so. What is missing is listed once at the end, with the commands that make it.

    Example: astro figures astrolabe --runs runs --results results --out results/figures
    """
    if paper not in STUDIES:
        raise RecordError("figures", paper, "no figures of this paper", hint=did_you_mean(paper, STUDIES))
    if runs != DEFAULT_RUNS and not runs.is_dir():
        raise RecordError(
            "--runs", str(runs), "no such folder", hint="train first: astro reproduce, astro rl or astro ablate"
        )
    from eval.report.paper_figures import Made, Missing, pictures

    console = plain_console(stderr=True)
    made = Made(runs, read_records(results), results)
    planned = pictures(paper, STUDIES[paper].pairs, made, with_sheets=sheets)
    written, missing = 0, dict[Missing, None]()
    columns = (plain_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("figures", total=len(planned))
        for picture in planned:
            progress.update(bar, description=picture.name)
            drawn = picture.draw(out / picture.name)
            written += drawn.written
            missing |= dict.fromkeys(drawn.missing)
            if drawn.written:
                console.print(f"wrote {out / picture.name}", soft_wrap=True)
            progress.advance(bar)
    if not written:
        hint = f"to make it: {next((lack.command for lack in missing if lack.command), 'astro reproduce ' + paper)}"
        raise RecordError("--runs", str(runs), "no picture can be drawn: no run and no record is there", hint=hint)
    console.print(f"{written} of {len(planned)} pictures in {out}", soft_wrap=True)
    for line in missing_lines(list(missing)):
        console.print(line, soft_wrap=True)


def missing_lines(missing: Sequence[Missing]) -> list[str]:
    """What is missing, each thing once, and below it the commands that make it, to be pasted."""
    arms: dict[str, dict[str, None]] = {}
    for lack in missing:
        arms.setdefault(lack.what, {})[lack.arm] = None
    lines = [f"missing: {what} {', '.join(of)}" for what, of in arms.items()]
    commands = dict.fromkeys(lack.command for lack in missing if lack.command)
    return [*lines, *(["to make it:"] if commands else []), *(f"  {command}" for command in commands)]

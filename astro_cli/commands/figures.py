"""`astro figures`: a paper's figures from the runs and records that are there.

Draws through `eval.report.paper_figures`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from astro_cli.commands.console import plain_column, plain_console
from astro_cli.commands.table import DEFAULT_RESULTS, read_records
from astro_cli.config.errors import RecordError, did_you_mean
from eval.studies.catalog import STUDIES


def figures(
    paper: Annotated[str, typer.Argument(help="Paper: astrolabe.")],
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the training runs, named <recipe>-seed<N>.")] = Path(
        "runs"
    ),
    results: Annotated[
        Path, typer.Option("--results", help="Folder whose records/*.jsonl are read.")
    ] = DEFAULT_RESULTS,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pictures.")] = DEFAULT_RESULTS / "figures",
    sheets: Annotated[
        bool, typer.Option("--sheets/--no-sheets", help="Contact sheets too: they generate videos, a minute per base.")
    ] = True,
) -> None:
    """Draw a paper's figures: reward curves per base and per ablation, bars of what was measured, contact sheets of
    base and tuned student.

    Every picture shows the finished runs and the records there are; what is missing is listed at the end, with the
    command that makes it.

    Example: astro figures astrolabe --runs runs --results results --out results/figures
    """
    if paper not in STUDIES:
        raise RecordError("figures", paper, "no figures of this paper", hint=did_you_mean(paper, STUDIES))
    if not runs.is_dir():
        raise RecordError(
            "--runs", str(runs), "no such folder", hint="train first: astro reproduce, astro rl or astro ablate"
        )
    from eval.report.paper_figures import pictures

    console = plain_console(stderr=True)
    planned = pictures(paper, STUDIES[paper].pairs, runs, read_records(results), with_sheets=sheets)
    written, lacks = 0, dict[str, list[str]]()
    columns = (plain_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("figures", total=len(planned))
        for picture in planned:
            progress.update(bar, description=picture.name)
            drawn = picture.draw(out / picture.name)
            written += drawn.written
            for what in drawn.missing:
                lacks.setdefault(what, []).append(picture.name)
            console.print(f"{'wrote' if drawn.written else 'skipped'} {picture.name}", soft_wrap=True)
            progress.advance(bar)
    if not written:
        raise RecordError(
            "--runs",
            str(runs),
            f"no picture can be drawn, missing: {'; '.join(lacks)}",
            hint="train first, or name another folder",
        )
    console.print(f"{written} of {len(planned)} pictures in {out}", soft_wrap=True)
    for what, names in lacks.items():
        console.print(f"missing: {what}: {', '.join(names)}", soft_wrap=True)

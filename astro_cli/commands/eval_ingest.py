"""`astro eval ingest`: takes over VBench's own result file as records. Owns the command line and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from astro_cli.commands.console import plain_console
from astro_cli.commands.eval_compare import TABLE_WIDTH
from astro_cli.config.errors import EXIT_PARTIAL

STRANGERS_SHOWN = 5


def ingest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="VBench's *_eval_results.json.")],
    suite: Annotated[str, typer.Option("--suite", help="vbench, vbench-long or vbench-i2v.")],
    arm: Annotated[str, typer.Option("--name", "-n", help="Name of the arm in records and tables.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the records.")] = 0,
    results: Annotated[Path, typer.Option("--results", help="Folder of records.")] = Path("results"),
) -> None:
    """Record the dimensions of an official VBench result file, and the totals where all dimensions are there. Exit 3:
    some are incomplete.

    Example: astro eval ingest results_eval_results.json --suite vbench --name astrolabe_causal
    """
    from eval.scoring.ingest import ingest as take_over

    ingested = take_over(file, suite, arm, seed, results)
    table = Table("metric", "value", "official", "coverage", "recorded")
    for outcome in (*ingested.outcomes, *ingested.totals):
        value = f"{outcome.mean:.4f}" if outcome.complete else f"partial ({outcome.coverage})"
        official = ingested.aggregates.get(outcome.key)
        table.add_row(
            outcome.key,
            value,
            "" if official is None else f"{official:.4f}",
            f"{outcome.coverage} {outcome.parts}",
            "yes" if outcome.key in ingested.written else "no",
        )
    console = plain_console(stderr=True)
    plain_console(width=TABLE_WIDTH).print(table)
    if ingested.unknown:
        shown = ", ".join(ingested.unknown[:STRANGERS_SHOWN])
        console.print(f"{len(ingested.unknown)} videos belong to no prompt of {suite}: {shown}", soft_wrap=True)
    if ingested.extra:
        shown = ", ".join(ingested.extra[:STRANGERS_SHOWN])
        console.print(f"{len(ingested.extra)} videos have no index that {suite} counts: {shown}", soft_wrap=True)
    if not ingested.complete:
        raise typer.Exit(EXIT_PARTIAL)

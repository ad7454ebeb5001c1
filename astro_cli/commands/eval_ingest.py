"""`astro eval ingest`: takes over VBench's own result file as records. Owns the command line and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from astro_cli.commands.console import plain_console
from astro_cli.commands.eval_compare import TABLE_WIDTH
from astro_cli.config.errors import EXIT_PARTIAL

SHOWN = 5  # names of a list


def ingest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="VBench's *_eval_results.json, or a zip of them.")],
    suite: Annotated[str, typer.Option("--suite", help="vbench, vbench-long or vbench-i2v.")],
    arm: Annotated[str, typer.Option("--name", "-n", help="Name of the arm in records and tables.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the records.")] = 0,
    results: Annotated[Path, typer.Option("--results", help="Folder of records.")] = Path("results"),
) -> None:
    """Record the dimensions of an official VBench result file. Files of one arm add up: the totals come with the last
    dimension. Exit 3: some are incomplete.

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
    for name, lost in ingested.missing.items():
        console.print(f"{name}: lacks {len(lost)}: {_shown(lost)}", soft_wrap=True)
    if ingested.unknown:
        what = f"{len(ingested.unknown)} videos belong to no prompt of {suite}"
        console.print(f"{what}: {_shown(ingested.unknown)}", soft_wrap=True)
    if ingested.extra:
        what = f"{len(ingested.extra)} videos have no index that {suite} counts"
        console.print(f"{what}: {_shown(ingested.extra)}", soft_wrap=True)
    if not ingested.complete:
        raise typer.Exit(EXIT_PARTIAL)


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

"""`astro eval compare`: prints how the records of one arm differ from another's."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from astro_cli.commands.console import echo, loading, plain_console

if TYPE_CHECKING:
    from eval.records.compare import Comparison

TABLE_WIDTH = 160


class Format(StrEnum):
    table = "table"
    json = "json"


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Arm, or a results folder that holds one.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other; differences are B - A.")],
    results: Annotated[Path, typer.Option("--results", help="Folder of the records of arms.")] = Path("results"),
    format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
) -> None:
    """Compare two arms metric by metric: paired difference by prompt and seed, 95 % interval over both, win rate.

    Example: astro eval compare causal_forcing_shapes astrolabe_causal_shapes
    """
    with loading(f"records of {a} and {b}"):
        from eval.records.compare import compare as compare_records
        from eval.records.compare import side

        (arm_a, records_a), (arm_b, records_b) = side(a, results), side(b, results)
        rows = compare_records(arm_a, records_a, arm_b, records_b)
    if format is Format.json:
        echo(
            json.dumps(
                {"a": arm_a, "b": arm_b, "metrics": [row.model_dump() for row in rows]}, indent=2, allow_nan=False
            )
        )
        return
    table = Table(
        "benchmark", "metric", arm_a, arm_b, "difference", "95 %", "win rate", "pairs", "prompts", "seeds", "better"
    )
    for row in rows:
        table.add_row(*cells(row))
    plain_console(width=TABLE_WIDTH).print(table)


def cells(row: Comparison) -> list[str]:
    """The texts of one line; the sixth, the interval, is empty where there is none."""
    better = "higher" if row.direction == "up" else "lower"
    if row.note:
        return [row.benchmark, row.metric, "", "", f"not comparable: {row.note}", "", "", "", "", "", better]
    numbers = [f"{value:.4f}" for value in (row.mean_a, row.mean_b)]
    interval = "" if row.low is None else f"{row.low:+.4f} .. {row.high:+.4f}"
    counts = [str(value) for value in (row.n, row.prompts, row.seeds)]
    return [
        row.benchmark,
        row.metric,
        *numbers,
        f"{row.difference:+.4f}",
        interval,
        f"{row.win_rate:.0%}",
        *counts,
        better,
    ]

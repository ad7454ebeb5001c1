"""`astro claims`: judges the papers' claims by the evaluation records here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from astro_cli.commands.console import echo
from astro_cli.commands.table import DEFAULT_RESULTS, read_records
from astro_cli.config.errors import RecordError, did_you_mean

SUMMARY = "summary"


def claims(
    paper: Annotated[
        str | None, typer.Argument(metavar="[PAPER]", help="A paper's name, e.g. astrolabe; all where none is named.")
    ] = None,
    format: Annotated[str, typer.Option("--format", help="text, json, markdown or summary.")] = "text",
    backbone: Annotated[
        str, typer.Option("--backbone", help="Whose records to judge by: shapes or wan. They never mix.")
    ] = "shapes",
    results: Annotated[
        Path, typer.Option("--results", help="Folder whose records/*.jsonl are read.")
    ] = DEFAULT_RESULTS,
) -> None:
    """Say which of the papers' claims hold, fail or are undecided by the records, or were not run.

    A claim holds where the 95 % interval of the paired difference lies within it, and fails where it lies outside. A
    claim of several parts holds where all do and fails where any does. The summary counts verdicts, on every backbone.

    Example: astro claims astrolabe --results results/astrolabe
    """
    from eval.papers.claims import list_papers, load_claims
    from eval.papers.verdicts import evaluate
    from eval.renderers.claims import RENDERERS
    from eval.renderers.claims_summary import summary_of_records

    formats = [*RENDERERS, SUMMARY]
    if format not in formats:
        raise RecordError(
            "--format", format, f"unknown format, allowed: {', '.join(formats)}", hint=did_you_mean(format, formats)
        )
    loaded = [load_claims(name) for name in ([paper] if paper else list_papers())]
    records = read_records(results)
    if format == SUMMARY:
        echo(summary_of_records(loaded, records))
        return
    echo(RENDERERS[format]([verdict for each in loaded for verdict in evaluate(each, records, backbone)]))

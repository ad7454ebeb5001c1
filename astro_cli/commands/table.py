"""`astro table`: prints a published table beside what was measured here. Reads records, runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from astro_cli.config.errors import RecordError, did_you_mean

DEFAULT_RESULTS = Path("results")
ALL = "all"


def table(
    table_id: Annotated[str, typer.Argument(metavar="ID", help="A table's id, a paper's name for all its tables, or 'all'.")],
    format: Annotated[str, typer.Option("--format", help="markdown, html, csv or json.")] = "markdown",
    backbone: Annotated[str, typer.Option("--backbone", help="Whose records to show: shapes or wan. They never mix.")] = "shapes",
    results: Annotated[Path, typer.Option("--results", help="Folder whose records/*.jsonl are read.")] = DEFAULT_RESULTS,
) -> None:
    """Print a published table with the measured values beside the published ones.

    Cells nobody has measured say 'not run'.

    Example: astro table astrolabe-1 --format markdown
    """
    from eval.render import check_format, render, render_many
    from eval.store import load_results
    from eval.table import build, check_backbone, differences, load_table

    check_format(format)
    checked = check_backbone(backbone)
    ids = resolve(table_id)
    if results != DEFAULT_RESULTS and not results.is_dir():
        raise RecordError("--results", str(results), "no such folder")
    records = load_results(results)
    tables = [load_table(name) for name in ids]
    items = [(build(each, records, checked), differences(each, records, checked)) for each in tables]
    typer.echo(render(*items[0], format) if ids == [table_id] else render_many(items, format))


def resolve(table_id: str) -> list[str]:
    """The ids an argument stands for: itself, all tables of a paper, or all tables."""
    from eval.table import list_tables

    known = list_tables()
    if table_id in known:
        return [table_id]
    found = known if table_id == ALL else [name for name in known if name.rpartition("-")[0] == table_id]
    if not found:
        papers = {name.rpartition("-")[0] for name in known}
        raise RecordError("table", table_id, "no such table or paper", hint=did_you_mean(table_id, {*known, *papers, ALL}))
    return found

"""`astro table`: prints published tables beside what was measured here, or checks their printed numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astro_cli.commands.console import echo, loading
from astro_cli.config.errors import EXIT_INTEGRITY, RecordError, did_you_mean

if TYPE_CHECKING:
    from eval.records.store import Record

DEFAULT_RESULTS = Path("results")


def table(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ID|PAPER|ablations|all]...", help="Tables by id, a paper's, or all.")
    ] = None,
    format: Annotated[str, typer.Option("--format", help="markdown, html, latex, csv or json.")] = "markdown",
    backbone: Annotated[
        str, typer.Option("--backbone", help="Whose records to show: shapes or wan. They never mix.")
    ] = "shapes",
    results: Annotated[
        Path, typer.Option("--results", help="Folder whose records/*.jsonl are read.")
    ] = DEFAULT_RESULTS,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Recompute what the printed numbers allow; exit 4 on an unexpected mismatch."),
    ] = False,
) -> None:
    """Print published tables with the measured values beside the published ones, and the papers' claims below them.

    Cells nobody has measured say 'not run'. Best is bold and second underlined within a column's group. A table by id
    is one table, any other name a list of them. `--verify` takes all tables where none is named.

    Example: astro table astrolabe-1 --format markdown

    Example: astro table --verify reward-forcing
    """
    from eval.papers.published import select

    if verify:
        print_checks([table_id for name in names or ["all"] for table_id in select(name)], format)
        return
    if not names:
        raise RecordError(
            "table",
            "",
            "no table named",
            hint="for example: astro table astrolabe-1, astro table reward-forcing, astro table all",
        )
    print_tables(names, format, backbone, results)


def print_tables(names: list[str], format: str, backbone: str, results: Path) -> None:
    """Print the tables the names stand for; one id alone is one table, not a list."""
    with loading(f"records of {results}"):
        from eval.papers.published import select
        from eval.records.comparable import check_backbone
        from eval.renderers.joined import join
        from eval.renderers.render import check_format, render, render_many

        check_format(format)
        ids = [table_id for name in names for table_id in select(name)]
        items = join(ids, read_records(results), check_backbone(backbone))
    is_one = ids == names and len(ids) == 1
    echo(render(items[0].view, items[0].differences, format, items[0].claims) if is_one else render_many(items, format))


def print_checks(ids: list[str], format: str) -> None:
    """Print the checks of these tables; exit 4 where a number neither adds up nor has an erratum."""
    from eval.papers.verify import verify as recompute
    from eval.renderers.checks import RENDERERS, summary

    if format not in RENDERERS:
        what = f"unknown format with --verify, allowed: {', '.join(RENDERERS)}"
        raise RecordError("--format", format, what, hint=did_you_mean(format, RENDERERS))
    outcomes = recompute(ids)
    echo(RENDERERS[format](outcomes))
    if any(outcome.verdict == "mismatch" for outcome in outcomes):
        echo(f"error: {summary(outcomes)}", err=True)
        raise typer.Exit(EXIT_INTEGRITY)


def read_records(results: Path) -> list[Record]:
    """The records below a results folder; the default folder need not exist yet.

    Raises:
        RecordError: the named folder is not there.
    """
    from eval.records.store import load_results

    if results != DEFAULT_RESULTS and not results.is_dir():
        raise RecordError("--results", str(results), "no such folder")
    return load_results(results)

"""`astro report`: one HTML page of all tables, claims, training curves and clips. Owns the options and the progress
bar.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from astro_cli.commands.console import loading, plain_column, plain_console
from astro_cli.commands.table import DEFAULT_RESULTS, read_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from eval.records.store import Backbone
    from eval.report.clips import Take

CLIPS = 6  # prompts shown
MEGABYTE = 1e6


def report(
    results: Annotated[
        Path, typer.Option("--results", help="Folder whose records/*.jsonl are read.")
    ] = DEFAULT_RESULTS,
    runs: Annotated[
        list[Path] | None, typer.Option("--runs", help="Run folder whose training curves are shown; repeatable.")
    ] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", "-a", help="Packaged base, run folder or weights file to show clips of; repeatable."),
    ] = None,
    backbone: Annotated[
        str, typer.Option("--backbone", help="Whose records to show: shapes or wan. They never mix.")
    ] = "shapes",
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
) -> None:
    """Write one HTML page that holds all there is to show: verdicts on the papers' claims, clips, training curves,
    tables and the protocol.

    The page is one file without scripts or links to other files; it reads on a phone, in the dark and in print.
    Equal input gives equal bytes.

    Example: astro report --out report.html

    Example: astro report --results results/astrolabe --arm shapes/self_forcing
    --runs results/astrolabe/runs/astrolabe_self_forcing_shapes-seed0
    --arm results/astrolabe/runs/astrolabe_self_forcing_shapes-seed0
    """
    with loading(f"records of {results}"):
        from eval.records.comparable import check_backbone
        from eval.report.curves import read_run
        from eval.report.sections import check_out, everything, shown_records, write_page

        chosen = check_backbone(backbone)
        check_out(out)
        records = shown_records(read_records(results), chosen, results)
        read = [read_run(folder, chosen) for folder in runs or []]
    console = plain_console(stderr=True)
    columns = (plain_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("reading", total=2 + bool(read) + (1 + len(arms) if arms else 0))

        def step(done: str) -> None:
            progress.update(bar, advance=1, description=done)

        takes = _takes(arms, chosen, step) if arms else []
        write_page(out, everything(records, chosen, read, takes), step)
    console.print(f"{out}: {out.stat().st_size / MEGABYTE:.1f} MB", soft_wrap=True)
    if not takes:
        console.print("note: without --arm there are no clips; for example --arm shapes/self_forcing --arm RUN")
    if not read:
        console.print("note: without --runs there are no training curves; for example --runs RUN")


def _takes(names: list[str], backbone: Backbone, progress: Callable[[str], None]) -> list[Take]:
    """Clips of held-out prompts by every arm."""
    from eval.report.generated import generate, load_arms

    return generate(load_arms(names, backbone), CLIPS, progress)

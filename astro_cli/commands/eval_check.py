"""`astro eval check`: what is wrong with a folder of videos, before any is scored. Owns what the user sees; the checks
are in `eval.inputs`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from astro_cli.commands.console import echo, loading, plain_column, plain_console
from astro_cli.commands.limits import MOST_JOBS
from astro_cli.config.errors import EXIT_USAGE

if TYPE_CHECKING:
    from eval.inputs.check import Checked
    from eval.inputs.requirements import Requirements

JOBS = min(4, os.cpu_count() or 1)  # decoding more at once is bound by the disk
PLAIN_WIDTH = 160  # columns where standard output is no terminal
COLORS = {"error": "red", "warning": "yellow"}


def check(
    folder: Annotated[
        Path, typer.Argument(help="Videos with a manifest.jsonl, with VBench's names, or from `astro sample`.")
    ],
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="Check for this suite; without one only what holds for every folder.")
    ] = "",
    prompts: Annotated[str, typer.Option("--prompts", help="Prompt set or file instead of the suite's own.")] = "",
    dimensions: Annotated[
        list[str] | None,
        typer.Option("--dimension", help="Ask only for the prompts of this VBench dimension; repeatable."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Decode no frames: finds unfinished files, but no damage inside.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=MOST_JOBS, help="Videos looked at together.")] = JOBS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all file names.")] = False,
) -> None:
    """Check names, counts, frame rates, lengths, sizes and every frame of a folder of videos before scoring it. Exit
    code 2 on errors.

    Example: astro eval check samples --suite temporal-flickering
    """
    with loading(suite or str(folder)):
        from eval.inputs.check import examine
        from eval.inputs.requirements import requirements

        needs = requirements(suite, prompts, tuple(dimensions or ()))
    console = plain_console(stderr=True)
    columns = (plain_column(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("checking videos", total=None)
        checked = examine(
            folder,
            needs,
            quick=quick,
            jobs=jobs,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        echo(json.dumps(_data(folder, needs, checked), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(folder, needs, checked)
    if checked.errors:
        raise typer.Exit(EXIT_USAGE)


def _data(folder: Path, needs: Requirements, checked: Checked) -> dict[str, Any]:
    """{"folder", "suite", "prompt_set": {"name", "version", "hash"} or null, "kind", "videos", "prompts", "errors",
    "warnings", "findings": [...]}
    """
    prompts = needs.prompts
    return {
        "folder": str(folder),
        "suite": needs.suite or None,
        "prompt_set": None
        if prompts is None
        else {"name": prompts.name, "version": prompts.version, "hash": prompts.hash},
        "kind": checked.kind,
        "videos": checked.videos,
        "prompts": checked.prompts,
        "errors": checked.errors,
        "warnings": len(checked.findings) - checked.errors,
        "findings": [asdict(finding) for finding in checked.findings],
    }


def _show(folder: Path, needs: Requirements, checked: Checked) -> None:
    console = plain_console(width=PLAIN_WIDTH)
    if checked.findings:
        table = Table("", "file", "key", "what", show_lines=True)
        for finding in checked.findings:
            what = finding.what + (f"\nhint: {finding.hint}" if finding.hint else "")
            table.add_row(Text(finding.severity, COLORS[finding.severity]), finding.file, finding.key, what)
        console.print(table)
    prompts = (
        "" if needs.prompts is None else f" of {needs.prompts.name} ({needs.prompts.version}, {needs.prompts.hash})"
    )
    counts = f"{checked.errors} errors, {len(checked.findings) - checked.errors} warnings"
    console.print(f"{folder}: {checked.videos} videos, {checked.prompts} prompts{prompts}: {counts}", soft_wrap=True)

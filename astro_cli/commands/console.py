"""What commands print with: consoles and columns that show names, prompts and messages as is, and aligned rows."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import TextColumn


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that reads no markup (`[red]`), no emoji names (`:cat:`) and no numbers to colour in what it prints.

    Args:
        width: columns where the stream is no terminal; None: as the environment says.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if width is not None and not console.is_terminal:
        console.width = width
    return console


def plain_column(template: str = "{task.description}") -> TextColumn:
    """A progress bar's text, printed as it is."""
    return TextColumn(template, markup=False)


def echo_aligned(rows: list[list[str]]) -> None:
    """Rows in columns; never cut or wrapped, so that each row stays one line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

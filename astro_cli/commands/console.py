"""What commands print with: consoles and columns that show names, prompts and messages as is, and aligned rows."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import TextColumn
from rich.segment import Segment
from rich.text import Text

from astro_cli.config.errors import EXIT_RUN, PromptError, printable

MOST_TYPED = 2**24  # characters of standard input


class _Console(Console):
    """Writes control characters in what it prints as `\\u001b`; its own colours and cursor movements stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def echo(message: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a line; control characters in it are written as `\\u001b`."""
    typer.echo(printable(str(message)), err=err, nl=nl)


def typed_lines() -> Iterator[str]:
    """The lines of standard input, none where it is closed.

    Raises:
        PromptError: not UTF-8 text, or more than anyone types: a device or a program that never ends.
    """
    size = 0
    try:
        while line := sys.stdin.readline(MOST_TYPED) if sys.stdin is not None else "":
            size += len(line)
            if size >= MOST_TYPED:
                raise PromptError("standard input", "", f"more than {MOST_TYPED:,} characters, expected prompts")
            yield line
    except UnicodeDecodeError as error:
        raise PromptError("standard input", "", "not UTF-8 text", hint="expected a prompt a line") from error


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that reads no markup (`[red]`), no emoji names (`:cat:`) and no numbers to colour in what it prints.

    Args:
        width: columns where the stream is no terminal; None: as the environment says.
    """
    console = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if width is not None and not console.is_terminal:
        console.width = width
    return console


@contextmanager
def loading(what: str) -> Iterator[None]:
    """A spinner on stderr while packages, weights or records are read; it leaves no trace. Nothing where stderr is no
    terminal. No other bar may run meanwhile.
    """
    console = plain_console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(Text(f"loading {what}")):
        yield


@contextmanager
def resumable(kept: str) -> Iterator[None]:
    """Ctrl-C within says what is kept, and that the same command goes on.

    Raises:
        Exit: 1, on Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        echo(f"interrupted; {kept}, the same command goes on", err=True)
        raise typer.Exit(EXIT_RUN) from None


def plain_column(template: str = "{task.description}") -> TextColumn:
    """A progress bar's text, printed as it is."""
    return TextColumn(template, markup=False)


def echo_aligned(rows: list[list[str]]) -> None:
    """Rows in columns; never cut or wrapped, so that each row stays one line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

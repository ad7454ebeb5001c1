"""Markdown of a joined table. Best is bold; second is <ins>, which GitHub underlines too (it drops <u>)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from eval.papers.table import Difference, TableView
from eval.renderers.grid import GridCell, Head, Mark, PrintedGrid, by_group, grid
from eval.renderers.words import DIFFERENCE_HEADS, ERRATUM_MARK, difference_lines, notes

HTML = re.compile(r"<(?!/?ins>)(?=[A-Za-z/!?])")  # what may begin a tag, a comment or a declaration (CommonMark 6.6)


def markdown(view: TableView, differences: Sequence[Difference]) -> str:
    lines = [
        f"### {_safe(view.title)}",
        "",
        f"`{view.id}` · {_safe(view.source)} · backbone `{view.backbone}`",
        "",
        *_grid(grid(view)),
    ]
    compared = difference_lines(view, differences)
    if compared:
        lines += ["", *pipe_table(DIFFERENCE_HEADS, compared, "lllrrl")]
    return "\n".join([*lines, "", *(f"- {_safe(note)}" for note in notes(view, bool(compared)))])


def pipe_table(heads: Sequence[str], rows: Iterable[Sequence[str]], aligned: str) -> list[str]:
    """A pipe table; `aligned` has one letter per column, l or r."""
    rule = "|" + "|".join(" :-- " if letter == "l" else " --: " for letter in aligned) + "|"
    return [_row(heads), rule, *map(_row, rows)]


def _grid(table: PrintedGrid) -> list[str]:
    rows: list[list[str]] = []
    for group, lines in by_group(table.lines):
        if group or rows:  # lines without a group are not part of the one above
            rows.append([f"**{group}**" if group else "", *[""] * len(table.heads)])
        rows += [[line.label, *map(_cell, line.cells)] for line in lines]
    return pipe_table([table.corner, *map(_head, table.heads)], rows, "l" + "r" * len(table.heads))


def _head(head: Head) -> str:
    return f"{head.group}: {head.label}" if head.group else head.label


def _cell(cell: GridCell) -> str:
    published = (
        _marked(cell.published, cell.mark)
        + (f" ({cell.delta})" if cell.delta else "")
        + (f" {ERRATUM_MARK}" if cell.erratum else "")
    )
    return published if cell.measured is None else f"{published} / {_marked(cell.measured, cell.measured_mark)}"


def _marked(text: str, mark: Mark) -> str:
    return f"**{text}**" if mark == "best" else f"<ins>{text}</ins>" if mark == "second" else text


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_safe(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _safe(text: str) -> str:
    """Text without HTML and links: a record's words would otherwise run where the table is shown. `<ins>` is ours."""
    return HTML.sub("&lt;", text).replace("](", "]\\(")

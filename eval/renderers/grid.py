"""A joined table as a grid of marked cells: best, second, erratum. Transposed where the paper prints it so."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from eval.papers.marks import MIN_FOR_SECOND, Mark
from eval.papers.published import Table, numbers
from eval.papers.table import TableView, ViewColumn, ViewRow
from eval.renderers.words import NO_COUNTERPART, heading, measured_text, published_text

PORTRAIT_COLUMNS = 8  # more need the whole width of a page, or a page on its side


class GridCell(NamedTuple):
    """Published and measured text of a cell. `measured` is None where the whole table has no counterpart."""

    published: str
    delta: str
    erratum: bool
    mark: Mark
    measured: str | None
    measured_mark: Mark


class Head(NamedTuple):
    label: str
    group: str


class TableLine(NamedTuple):
    label: str
    group: str
    cells: list[GridCell]


class PrintedGrid(NamedTuple):
    """Heads and lines as they are printed; `corner` names what the labels of the lines are."""

    corner: str
    heads: list[Head]
    lines: list[TableLine]


def grid(view: TableView) -> PrintedGrid:
    """The grid of a table, every cell marked within its column and group."""
    marks = {column.key: _column_marks(view, column) for column in view.columns}
    heads = [Head(heading(column), column.group) for column in view.columns]
    lines = []
    for row in view.rows:
        cells = [_cell(view, row, column, marks[column.key]) for column in view.columns]
        lines.append(TableLine(row.label, row.group, cells))
    if not view.table.transposed:
        return PrintedGrid(view.table.row_label, heads, lines)
    flipped = []
    for index, head in enumerate(heads):
        flipped.append(TableLine(head.label, head.group, [line.cells[index] for line in lines]))
    return PrintedGrid(view.table.row_label, [Head(line.label, line.group) for line in lines], flipped)


def rank(values: Mapping[str, Decimal], direction: str) -> dict[str, Mark]:
    """Best and second of one column and group; ties share a mark. No mark where there is nothing to compare."""
    if direction == "none" or len(set(values.values())) < 2:
        return {}
    ordered = sorted(set(values.values()), reverse=direction == "up")
    second = ordered[1] if len(values) >= MIN_FOR_SECOND else None
    return {
        label: "best" if value == ordered[0] else "second"
        for label, value in values.items()
        if value in (ordered[0], second)
    }


def _column_marks(view: TableView, column: ViewColumn) -> dict[str, Mark]:
    """Marks by row of the published numbers."""
    printed = {}
    if view.table.comparable:
        for group in {row.group for row in view.rows}:
            printed |= rank(_printed(view.table, column.key, group), column.direction)
    return printed


def _printed(table: Table, key: str, group: str) -> dict[str, Decimal]:
    return {row.label: value for row, value in numbers(table, key) if row.group == group}


def _cell(view: TableView, row: ViewRow, column: ViewColumn, printed: dict[str, Mark]) -> GridCell:
    has_counterpart = any(other.metric is not None for other in view.columns)
    return GridCell(
        published=published_text(row.printed.get(column.key, NO_COUNTERPART), column),
        delta=f"{row.delta[column.key]:+}" if column.key in row.delta else "",
        erratum=any(erratum.columns and erratum.covers(row.label, column.key) for erratum in view.table.errata),
        mark=printed.get(row.label, ""),
        measured=measured_text(row.measured[column.key], column) if has_counterpart else None,
        measured_mark=row.marks.get(column.key, ""),
    )


def is_wide(table: PrintedGrid) -> bool:
    return len(table.heads) > PORTRAIT_COLUMNS


def by_group(lines: list[TableLine]) -> list[tuple[str, list[TableLine]]]:
    """Runs of lines under one group heading."""
    return [(group, list(of_group)) for group, of_group in groupby(lines, key=lambda line: line.group)]


def head_groups(heads: list[Head]) -> list[tuple[str, int]]:
    """Headings above the heads with the number of columns each spans; empty where no head has one."""
    spans = [(group, len(list(of_group))) for group, of_group in groupby(heads, key=lambda head: head.group)]
    return spans if any(group for group, _ in spans) else []

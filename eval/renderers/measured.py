"""Of a joined table what was measured: rows and columns with records, and below a tuned row its difference to its base.

The whole table, published numbers and all, is `eval.renderers.html`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eval.papers.table import Difference, Measured, TableView, ViewColumn, ViewRow
from eval.renderers.headline import number_text
from eval.renderers.templating import fill
from eval.renderers.words import DECIMALS_EXACT, decimals, heading, interval_decimals, seeds, shown_in

NONE = "–"  # a cell that was not measured in a row that was
DECIMALS_OF_UNITS = 1


class MeasuredCell(NamedTuple):
    text: str
    note: str = ""  # seeds, where the cells of the table have not the same; the paper's difference
    verdict: str = ""  # of a difference


class MeasuredLine(NamedTuple):
    label: str
    group: str
    is_difference: bool
    cells: list[MeasuredCell]


class MeasuredTable(NamedTuple):
    corner: str
    heads: list[str]
    lines: list[MeasuredLine]
    seeds: str  # that all cells have; "" where they differ


def measured_html(view: TableView, differences: Sequence[Difference]) -> str:
    """A fragment; its id is `measured-<table>`."""
    return fill("measured_table.html", view=view, table=measured_table(view, differences))


def measured_table(view: TableView, differences: Sequence[Difference]) -> MeasuredTable:
    columns = [column for column in view.columns if _is_measured(view, column)]
    rows = [row for row in view.rows if any(row.measured.values())]
    counts = {cell.n for row in rows for cell in row.measured.values() if cell is not None}
    shared = seeds(counts.pop()) if len(counts) == 1 else ""
    lines = []
    for row in rows:
        cells = [_cell(row.measured[column.key], column, is_shared=bool(shared)) for column in columns]
        lines.append(MeasuredLine(row.label, row.group, False, cells))
        lines += _difference_line(row, columns, differences)
    return MeasuredTable(view.table.row_label, list(map(heading, columns)), lines, shared)


def _is_measured(view: TableView, column: ViewColumn) -> bool:
    return any(row.measured[column.key] for row in view.rows)


def _difference_line(
    row: ViewRow, columns: Sequence[ViewColumn], differences: Iterable[Difference]
) -> list[MeasuredLine]:
    own = {each.key: each for each in differences if each.row == row.label and each.measured is not None}
    if not own:
        return []
    base = next(iter(own.values())).base
    cells = [_difference_cell(own.get(column.key), column) for column in columns]
    return [MeasuredLine(f"minus {base}", row.group, True, cells)]


def _cell(measured: Measured | None, column: ViewColumn, *, is_shared: bool) -> MeasuredCell:
    if measured is None:
        return MeasuredCell(NONE)
    scale, unit = shown_in(column.metric, measured.mean)
    half_width = _half_width(measured, scale)
    digits = _digits(half_width, unit)
    interval = f" ± {number_text(half_width, digits)}" if half_width else ""
    text = f"{number_text(measured.mean / scale, digits)}{interval}{unit}"
    return MeasuredCell(text, "" if is_shared else seeds(measured.n))


def _difference_cell(difference: Difference | None, column: ViewColumn) -> MeasuredCell:
    if difference is None or difference.measured is None:
        return MeasuredCell(NONE)
    measured = difference.measured
    scale, unit = shown_in(column.metric, measured.mean)
    half_width = _half_width(measured, scale)
    bounds = [end / scale for end in (measured.low, measured.high) if end is not None]
    digits = interval_decimals(bounds[0], bounds[1]) if half_width else _digits(half_width, unit)
    mean = number_text(measured.mean / scale, digits)
    sign = "+" if mean.strip(".0,") and not mean.startswith("-") else ""
    ends = [number_text(bound, digits) for bound in bounds]
    interval = f" [{ends[0]}, {ends[1]}]" if half_width else ""
    published = "" if difference.published is None else f"published {_signed(difference.published)}"
    return MeasuredCell(f"{sign}{mean}{interval}{unit}", published, difference.verdict or "")


def _signed(value: float) -> str:
    return f"{value:+.6g}" if value else "0"


def _half_width(measured: Measured, scale: float) -> float:
    return 0.0 if measured.low is None or measured.high is None else (measured.high - measured.low) / 2 / scale


def _digits(half_width: float, unit: str) -> int:
    return decimals(half_width) if half_width else DECIMALS_OF_UNITS if unit else DECIMALS_EXACT

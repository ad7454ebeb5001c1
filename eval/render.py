"""Printing of a joined table: markdown, HTML, CSV and JSON. Computes nothing."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby

from astro_cli.config.errors import RecordError, did_you_mean
from eval.table import EQUAL_WITHIN, MIN_PAIRS, Difference, Measured, TableView, ViewColumn, ViewRow

NOT_RUN = "not run"
NO_COUNTERPART = "—"
ARROWS = {"up": "↑", "down": "↓"}
DECIMALS_EXACT = 3  # of a mean whose interval has no width
MAX_DECIMALS = 4  # finer than any seed repeats
MEASURED_FIELDS = ("low", "high", "n")
Item = tuple[TableView, Sequence[Difference]]


def render(view: TableView, differences: Sequence[Difference], fmt: str) -> str:
    """One table as text. `json` is the stable form of the table; it and `csv` leave the differences out."""
    return _renderer(fmt)(view, differences)


def render_many(items: Iterable[Item], fmt: str) -> str:
    """Several tables as one text; a list in `json`."""
    renderer = _renderer(fmt)
    if fmt == "json":
        return _dumps([view.model_dump() for view, _ in items])
    return "\n\n".join(renderer(view, differences) for view, differences in items)


def check_format(fmt: str) -> None:
    """RecordError unless `render` knows the format."""
    _renderer(fmt)


def _renderer(fmt: str) -> Callable[[TableView, Sequence[Difference]], str]:
    if fmt not in RENDERERS:
        raise RecordError("--format", fmt, f"unknown format, allowed: {', '.join(RENDERERS)}", hint=did_you_mean(fmt, RENDERERS))
    return RENDERERS[fmt]


# --- the words of a cell, shared by the formats


def _decimals(half_width: float) -> int:
    """Two significant digits of the half-width."""
    if half_width <= 0:
        return DECIMALS_EXACT
    return min(max(1 - math.floor(math.log10(half_width)), 0), MAX_DECIMALS)


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _measured_text(measured: Measured | None, column: ViewColumn) -> str:
    if column.metric is None:
        return NO_COUNTERPART
    if measured is None:
        return NOT_RUN
    half_width = (measured.high - measured.low) / 2
    digits = _decimals(half_width)
    return f"{measured.mean:.{digits}f} ± {half_width:.{digits}f} ({_seeds(measured.n)})"


def _published_text(row: ViewRow, column: ViewColumn) -> str:
    return row.printed.get(column.key, NO_COUNTERPART)


def _header(column: ViewColumn) -> str:
    return f"{column.label} {ARROWS[column.direction]}"


def _published_delta_text(difference: Difference) -> str:
    if difference.published is None:
        return NO_COUNTERPART
    return "0" if difference.published == 0 else f"{difference.published:+.6g}"


def _measured_delta_text(difference: Difference) -> str:
    measured = difference.measured
    if measured is None:
        return difference.verdict or NO_COUNTERPART
    digits = _decimals((measured.high - measured.low) / 2)
    return f"{measured.mean:+.{digits}f} [{measured.low:+.{digits}f}, {measured.high:+.{digits}f}] ({_seeds(measured.n)})"


def _compared(view: TableView, differences: Sequence[Difference]) -> list[tuple[Difference, ViewColumn]]:
    """The differences worth a line: in columns that exist on the backbone."""
    columns = {column.key: column for column in view.columns if column.metric is not None}
    return [(difference, columns[difference.key]) for difference in differences if difference.key in columns]


def _notes(view: TableView) -> list[str]:
    """What a reader must know before comparing two numbers."""
    played = [f"{column.label} is `{column.metric}`" for column in view.columns if column.metric is not None]
    missing = [column.label for column in view.columns if column.metric is None]
    stand_ins = ", ".join(played) or "no column has a counterpart"
    absent = f"; no counterpart ({NO_COUNTERPART}): {', '.join(missing)}" if missing and played else ""
    comparable = (
        "absolute values are not comparable with the published ones, the signs of the differences are"
        if view.backbone == "shapes"
        else "absolute values are comparable only where the protocol is the published one"
    )
    notes = [
        f"Cells: published / measured mean ± half-width of the 95 % bootstrap interval (seeds). `{NOT_RUN}`: no record exists.",
        f"Measured on `{view.backbone}`: {comparable}. On `{view.backbone}` {stand_ins}{absent}.",
    ]
    return [*notes, view.note] if view.note else notes


DIFFERENCE_HEADS = ("Row", "Base", "Column", "Published difference", "Measured difference [95 %]", "Verdict")
DIFFERENCE_NOTE = (
    "Differences are paired over seeds and prompts. `agrees`: the interval excludes 0 on the published side; `disagrees`: on the "
    f"other side; `undecided`: it contains 0, or there are under {MIN_PAIRS} pairs. "
    f"A published 0 agrees within {EQUAL_WITHIN:.0%} of the base."
)


def _difference_cells(difference: Difference, column: ViewColumn) -> list[str]:
    return [
        difference.row,
        difference.base,
        _header(column),
        _published_delta_text(difference),
        _measured_delta_text(difference),
        difference.verdict or NO_COUNTERPART,
    ]


# --- markdown


def _pipe_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _pipe_rule(left: int, right: int) -> str:
    return "|" + " :-- |" * left + " --: |" * right


def _markdown(view: TableView, differences: Sequence[Difference]) -> str:
    lines = [f"### {view.title}", "", f"`{view.id}` · {view.source} · backbone `{view.backbone}`", ""]
    lines += [_pipe_row(["Method", *map(_header, view.columns)]), _pipe_rule(1, len(view.columns))]
    for group, rows in groupby(view.rows, key=lambda row: row.group):
        if group:
            lines.append(_pipe_row([f"**{group}**", *[""] * len(view.columns)]))
        lines += [_pipe_row([row.label, *_cells_in_one(view, row)]) for row in rows]
    if compared := _compared(view, differences):
        lines += ["", _pipe_row(DIFFERENCE_HEADS), _pipe_rule(3, 2) + " :-- |"]
        lines += [_pipe_row(_difference_cells(difference, column)) for difference, column in compared]
    notes = [*_notes(view), DIFFERENCE_NOTE] if compared else _notes(view)
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def _cells_in_one(view: TableView, row: ViewRow) -> list[str]:
    return [f"{_published_text(row, c)} / {_measured_text(row.measured[c.key], c)}" for c in view.columns]


# --- html


def _html(view: TableView, differences: Sequence[Difference]) -> str:
    """A fragment without scripts or outside files; the wrapping element scrolls sideways on a phone."""
    compared = _compared(view, differences)
    notes = [*_notes(view), DIFFERENCE_NOTE] if compared else _notes(view)
    parts = [
        f'<div class="astro-table" id="{html.escape(view.id)}" style="overflow-x:auto;max-width:100%">',
        _html_table(view),
        _html_differences(compared) if compared else "",
        *(f"<p><small>{_html_note(note)}</small></p>" for note in notes),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _html_table(view: TableView) -> str:
    caption = f"{view.title} ({view.source}; backbone {view.backbone})"
    heads = "".join(f'<th scope="col">{html.escape(_header(column))}</th>' for column in view.columns)
    lines = [f"<table>\n<caption>{html.escape(caption)}</caption>", f'<thead><tr><th scope="col">Method</th>{heads}</tr></thead>']
    for group, rows in groupby(view.rows, key=lambda row: row.group):
        lines.append("<tbody>")
        if group:
            lines.append(f'<tr><th colspan="{len(view.columns) + 1}" scope="rowgroup">{html.escape(group)}</th></tr>')
        lines += [_html_row(view, row) for row in rows]
        lines.append("</tbody>")
    return "\n".join([*lines, "</table>"])


def _html_row(view: TableView, row: ViewRow) -> str:
    cells = "".join(
        f'<td><span class="published">{html.escape(_published_text(row, column))}</span> / '
        f'<span class="measured">{html.escape(_measured_text(row.measured[column.key], column))}</span></td>'
        for column in view.columns
    )
    return f'<tr><th scope="row">{html.escape(row.label)}</th>{cells}</tr>'


def _html_differences(compared: list[tuple[Difference, ViewColumn]]) -> str:
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in DIFFERENCE_HEADS)
    rows = [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _difference_cells(difference, column)) + "</tr>"
        for difference, column in compared
    ]
    lines = ["<table>\n<caption>Differences</caption>", f"<thead><tr>{heads}</tr></thead>", "<tbody>", *rows, "</tbody>\n</table>"]
    return "\n".join(lines)


def _html_note(note: str) -> str:
    """`code` in backticks becomes an element; everything is escaped."""
    pieces = html.escape(note).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


# --- csv and json


def _csv(view: TableView, _differences: Sequence[Difference]) -> str:
    """One line per row: per column its published value, the measured mean, the interval's ends and the number of seeds."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    heads = [[c.key, f"{c.key}_measured", *(f"{c.key}_{field}" for field in MEASURED_FIELDS)] for c in view.columns]
    writer.writerow(["table", "backbone", "group", "label", *chain.from_iterable(heads)])
    for row in view.rows:
        cells = chain.from_iterable(_csv_cells(row, column) for column in view.columns)
        writer.writerow([view.id, view.backbone, row.group, row.label, *cells])
    return stream.getvalue().rstrip("\n")


def _csv_cells(row: ViewRow, column: ViewColumn) -> list[object]:
    published, measured = row.printed.get(column.key, ""), row.measured[column.key]
    if measured is None:
        return [published, _measured_text(measured, column), *[""] * len(MEASURED_FIELDS)]
    return [published, measured.mean, *(getattr(measured, field) for field in MEASURED_FIELDS)]


def _json(view: TableView, _differences: Sequence[Difference]) -> str:
    return _dumps(view.model_dump())


def _dumps(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


RENDERERS: dict[str, Callable[[TableView, Sequence[Difference]], str]] = {
    "markdown": _markdown,
    "html": _html,
    "csv": _csv,
    "json": _json,
}

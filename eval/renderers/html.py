"""HTML of a joined table: a fragment without scripts or outside files, everything escaped. Best is <strong>, second <u>."""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence

from eval.renderers.grid import Grid, GridCell, Line, Mark, by_group, grid, head_groups
from eval.renderers.words import DIFFERENCE_HEADS, ERRATUM_MARK, difference_lines, notes
from eval.table import Difference, TableView

TAGS = {"best": "strong", "second": "u"}


def html(view: TableView, differences: Sequence[Difference]) -> str:
    """The wrapping element scrolls sideways on a phone."""
    compared = difference_lines(view, differences)
    parts = [
        f'<div class="astro-table" id="{_text(view.id)}" style="overflow-x:auto;max-width:100%">',
        _grid(grid(view), f"{view.title} ({view.source}; backbone {view.backbone})"),
        plain_table("Differences", DIFFERENCE_HEADS, compared) if compared else "",
        *(f"<p><small>{with_code(note)}</small></p>" for note in notes(view, bool(compared))),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def plain_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text."""
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in heads)
    body = ["<tr>" + "".join(f"<td>{with_code(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    lines = [f"<table>\n<caption>{_text(caption)}</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>", *body, "</tbody>\n</table>"]
    return "\n".join(lines)


def with_code(text: str) -> str:
    """`code` in backticks becomes an element; everything is escaped."""
    pieces = escaping.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _grid(table: Grid, caption: str) -> str:
    lines = [f"<table>\n<caption>{_text(caption)}</caption>", f"<thead>{_heads(table)}</thead>"]
    for group, held in by_group(table.lines):
        lines.append("<tbody>")
        if group:
            lines.append(f'<tr><th colspan="{len(table.heads) + 1}" scope="rowgroup">{_text(group)}</th></tr>')
        lines += [*map(_line, held), "</tbody>"]
    return "\n".join([*lines, "</table>"])


def _heads(table: Grid) -> str:
    heads = "".join(f'<th scope="col">{_text(head.label)}</th>' for head in table.heads)
    row = f'<tr><th scope="col">{_text(table.corner)}</th>{heads}</tr>'
    if not (spans := head_groups(table.heads)):
        return row
    above = "".join(f'<th colspan="{count}" scope="colgroup">{_text(group)}</th>' for group, count in spans)
    return f"<tr><td></td>{above}</tr>{row}"


def _line(line: Line) -> str:
    return f'<tr><th scope="row">{_text(line.label)}</th>{"".join(map(_cell, line.cells))}</tr>'


def _cell(cell: GridCell) -> str:
    delta = f" <small>({_text(cell.delta)})</small>" if cell.delta else ""
    published = f'<span class="published">{_marked(cell.published, cell.mark)}{delta}{f" {ERRATUM_MARK}" if cell.erratum else ""}</span>'
    if cell.measured is None:
        return f"<td>{published}</td>"
    return f'<td>{published} / <span class="measured">{_marked(cell.measured, cell.measured_mark)}</span></td>'


def _marked(text: str, mark: Mark) -> str:
    return f"<{TAGS[mark]}>{_text(text)}</{TAGS[mark]}>" if mark else _text(text)


def _text(text: str) -> str:
    return escaping.escape(text)

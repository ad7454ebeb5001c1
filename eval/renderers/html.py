"""HTML of a joined table: a fragment without scripts or outside files, everything escaped.

Best is <strong>, second <u>.
"""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence

from eval.papers.table import Difference, TableView
from eval.renderers.grid import GridCell, Mark, PrintedGrid, TableLine, by_group, grid, head_groups, is_wide
from eval.renderers.words import DIFFERENCE_HEADS, ERRATUM_MARK, difference_lines, notes

TAGS = {"best": "strong", "second": "u"}


def html(view: TableView, differences: Sequence[Difference]) -> str:
    """On a phone each table scrolls sideways in its own box, the notes stay."""
    compared, table = difference_lines(view, differences), grid(view)
    kind = "astro-table wide" if is_wide(table) else "astro-table"
    parts = [
        f'<div class="{kind}" id="{_text(view.id)}">',
        scrolling(_grid(table, f"{view.title} ({view.source}; backbone {view.backbone})"), view.title),
        scrolling(plain_table("Differences", DIFFERENCE_HEADS, compared, "lllrrl"), f"Differences, {view.title}")
        if compared
        else "",
        *(f"<p><small>{with_code(note)}</small></p>" for note in notes(view, bool(compared))),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def scrolling(inner: str, name: str) -> str:
    """A box that scrolls sideways; it takes the focus, so that the keyboard can scroll it too."""
    return (
        '<div class="scroll" style="overflow-x:auto;max-width:100%" tabindex="0" role="region" '
        f'aria-label="{_text(name)}">{inner}</div>'
    )


def caption_of(text: str) -> str:
    """Its inner element can stay in sight while a wide table scrolls below it."""
    return f"<caption><span>{_text(text)}</span></caption>"


def plain_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], aligned: str) -> str:
    """A table of text; `aligned` has one letter per column, l or r."""
    kinds = [' class="text"' if letter == "l" else "" for letter in aligned]
    head = "".join(f'<th scope="col"{kind}>{_text(cell)}</th>' for cell, kind in zip(heads, kinds, strict=True))
    body = []
    for row in rows:
        cells = [f"<td{kind}>{with_code(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    lines = [
        f"<table>\n{caption_of(caption)}",
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *body,
        "</tbody>\n</table>",
    ]
    return "\n".join(lines)


def with_code(text: str) -> str:
    """`code` in backticks becomes an element; everything is escaped."""
    pieces = escaping.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _grid(table: PrintedGrid, caption: str) -> str:
    lines = [f"<table>\n{caption_of(caption)}", f"<thead>{_heads(table)}</thead>"]
    for group, of_group in by_group(table.lines):
        lines.append("<tbody>")
        if group:
            lines.append(f'<tr><th colspan="{len(table.heads) + 1}" scope="rowgroup">{_text(group)}</th></tr>')
        lines += [*map(_line, of_group), "</tbody>"]
    return "\n".join([*lines, "</table>"])


def _heads(table: PrintedGrid) -> str:
    heads = "".join(f'<th scope="col">{_text(head.label)}</th>' for head in table.heads)
    row = f'<tr><th scope="col">{_text(table.corner)}</th>{heads}</tr>'
    if not (spans := head_groups(table.heads)):
        return row
    above = "".join(f'<th colspan="{count}" scope="colgroup">{_text(group)}</th>' for group, count in spans)
    return f"<tr><td></td>{above}</tr>{row}"


def _line(line: TableLine) -> str:
    return f'<tr><th scope="row">{_text(line.label)}</th>{"".join(map(_cell, line.cells))}</tr>'


def _cell(cell: GridCell) -> str:
    delta = f" <small>({_text(cell.delta)})</small>" if cell.delta else ""
    published = (
        "<span "
        f'class="published">{_marked(cell.published, cell.mark)}{delta}'
        f"{f' {ERRATUM_MARK}' if cell.erratum else ''}</span>"
    )
    if cell.measured is None:
        return f"<td>{published}</td>"
    return (
        f'<td>{published}<span class="slash"> / </span><span '
        f'class="measured">{_marked(cell.measured, cell.measured_mark)}</span></td>'
    )


def _marked(text: str, mark: Mark) -> str:
    return f"<{TAGS[mark]}>{_text(text)}</{TAGS[mark]}>" if mark else _text(text)


def _text(text: str) -> str:
    return escaping.escape(text)

"""LaTeX of a joined table: a float for booktabs, across both columns of a page where it is wide, in ASCII.

Best is bold, second underlined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from eval.papers.table import Difference, TableView
from eval.renderers.grid import GridCell, Mark, PrintedGrid, by_group, grid, head_groups, is_wide
from eval.renderers.words import DIFFERENCE_HEADS, difference_lines, notes

PREAMBLE, WIDE_PREAMBLE = r"% needs \usepackage{booktabs}", r"% needs \usepackage{booktabs} and \usepackage{graphicx}"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "−": "$-$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"\S{}",
    "—": "---",
    "·": r"$\cdot$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "η": r"$\eta$",
    "λ": r"$\lambda$",
    "ϵ": r"$\epsilon$",
}
NEGATIVE = re.compile(r"^[+-]\d")


def latex(view: TableView, differences: Sequence[Difference]) -> str:
    compared, table = difference_lines(view, differences), grid(view)
    environment = "table*" if is_wide(table) else "table"
    lines = [
        WIDE_PREAMBLE if is_wide(table) else PREAMBLE,
        rf"\begin{{{environment}}}[t]",
        r"\centering\small",
        rf"\caption{{{escape(view.title)} ({escape(view.source)}; backbone {escape(view.backbone)}).}}",
        rf"\label{{tab:{view.id}}}",
        *([r"\resizebox{\textwidth}{!}{%", *_grid(table), "}"] if is_wide(table) else _grid(table)),
        *(_differences(compared) if compared else []),
        *(rf"\par\footnotesize {with_code(note)}" for note in notes(view, bool(compared))),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Text as LaTeX prints it, characters of its own syntax and signs outside ASCII included."""
    return "".join(SPECIAL.get(character, character) for character in text)


def with_code(text: str) -> str:
    """`code` in backticks in typewriter type; everything is escaped."""
    return "".join(
        rf"\texttt{{{escape(piece)}}}" if i % 2 else escape(piece) for i, piece in enumerate(text.split("`"))
    )


def _grid(table: PrintedGrid) -> list[str]:
    width = len(table.heads)
    lines = [rf"\begin{{tabular}}{{l{'r' * width}}}", r"\toprule", *_head_groups(table)]
    lines += [_row([escape(table.corner), *(escape(head.label) for head in table.heads)])]
    for group, of_group in by_group(table.lines):
        lines.append(r"\midrule")
        if group:
            lines.append(rf"\multicolumn{{{width + 1}}}{{l}}{{\textit{{{escape(group)}}}}} \\")
        lines += [_row([escape(line.label), *map(_cell, line.cells)]) for line in of_group]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _head_groups(table: PrintedGrid) -> list[str]:
    """Headings above the heads, each with its rule."""
    spans = head_groups(table.heads)
    if not spans:
        return []
    ends = list(accumulate((count for _, count in spans), initial=1))  # the labels are column 1
    rules = [
        rf"\cmidrule(lr){{{start + 1}-{end}}}"
        for start, end, (group, _) in zip(ends, ends[1:], spans, strict=False)
        if group
    ]
    return [
        _row(["", *(rf"\multicolumn{{{count}}}{{c}}{{{escape(group)}}}" for group, count in spans)]),
        "".join(rules),
    ]


def _cell(cell: GridCell) -> str:
    delta = f" ({_number(cell.delta)})" if cell.delta else ""
    published = _marked(cell.published, cell.mark) + delta + (escape("‡") if cell.erratum else "")
    return published if cell.measured is None else f"{published} / {_marked(cell.measured, cell.measured_mark)}"


def _marked(text: str, mark: Mark) -> str:
    body = _number(text)
    return rf"\textbf{{{body}}}" if mark == "best" else rf"\underline{{{body}}}" if mark == "second" else body


def _number(text: str) -> str:
    """A leading sign is a minus, not a hyphen."""
    return f"${text[0]}${escape(text[1:])}" if NEGATIVE.match(text) else escape(text)


def _differences(rows: list[list[str]]) -> list[str]:
    body = [_row([*map(escape, row)]) for row in rows]
    heads = _row([*map(escape, DIFFERENCE_HEADS)])
    return [
        r"\par\medskip",
        r"\begin{tabular}{lllrrl}",
        r"\toprule",
        heads,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"

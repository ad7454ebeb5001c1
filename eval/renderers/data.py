"""CSV and JSON of a joined table, for programs. Leaves the differences and notes out."""

from __future__ import annotations

import csv as writing
import io
import json as encoding
from collections.abc import Sequence
from itertools import chain
from typing import Any

from eval.papers.table import Difference, TableView, ViewColumn, ViewRow
from eval.renderers.words import measured_text

MEASURED_FIELDS = ("low", "high", "n")


def csv(view: TableView, _differences: Sequence[Difference]) -> str:
    """One line per row: per column its published value, the measured mean, the interval's ends and the number of
    seeds.
    """
    heads = chain.from_iterable(_csv_heads(column.key) for column in view.columns)
    lines: list[list[object]] = [["table", "backbone", "group", "label", *heads]]
    for row in view.rows:
        cells = chain.from_iterable(_csv_cells(row, column) for column in view.columns)
        lines.append([view.id, view.backbone, row.group, row.label, *cells])
    return csv_lines(lines)


def csv_lines(lines: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    writing.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue().rstrip("\n")


def _csv_heads(key: str) -> list[str]:
    return [key, f"{key}_measured", *(f"{key}_{field}" for field in MEASURED_FIELDS)]


def _csv_cells(row: ViewRow, column: ViewColumn) -> list[object]:
    published, measured = row.printed.get(column.key, ""), row.measured[column.key]
    if measured is None:
        return [published, measured_text(measured, column), *[""] * len(MEASURED_FIELDS)]
    return [
        published,
        measured.mean,
        *("" if (value := getattr(measured, field)) is None else value for field in MEASURED_FIELDS),
    ]


def json(view: TableView, _differences: Sequence[Difference]) -> str:
    return dumps(json_form(view))


def json_form(view: TableView) -> dict[str, Any]:
    """The stable form. A published cell without a number is null there; its text, if any, stands under the row's
    `text`.
    """
    data = view.model_dump()
    for fields, row in zip(data["rows"], view.rows, strict=True):
        if text := {key: cell for key, cell in row.printed.items() if row.published[key] is None}:
            fields["text"] = text
    return data


def dumps(data: object) -> str:
    return encoding.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)

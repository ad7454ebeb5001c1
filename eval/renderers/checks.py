"""Outcomes of `astro table --verify` as Markdown, CSV and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eval.papers.verify import NumberCheck
from eval.renderers.data import csv_lines, dumps
from eval.renderers.markdown import pipe_table

HEADS = ("Table", "Check", "Row", "Column", "Printed", "Recomputed", "Difference", "Tolerance", "Verdict")
DECIMALS = 6


def checks_markdown(outcomes: Sequence[NumberCheck]) -> str:
    return "\n".join(
        [*pipe_table(HEADS, [_cells(outcome) for outcome in outcomes], "llllrrrrl"), "", summary(outcomes)]
    )


def checks_csv(outcomes: Sequence[NumberCheck]) -> str:
    return csv_lines([list(NumberCheck.model_fields), *(list(outcome.model_dump().values()) for outcome in outcomes)])


def checks_json(outcomes: Sequence[NumberCheck]) -> str:
    return dumps([outcome.model_dump() for outcome in outcomes])


def summary(outcomes: Sequence[NumberCheck]) -> str:
    counts = Counter(outcome.verdict for outcome in outcomes)
    return (
        f"{len(outcomes)} checks: {counts['ok']} ok, {counts['erratum known']} erratum known, "
        f"{counts['mismatch']} mismatch"
    )


def _cells(outcome: NumberCheck) -> list[str]:
    numbers = [_number(value) for value in (outcome.printed, outcome.recomputed, outcome.difference, outcome.tolerance)]
    return [outcome.table, outcome.check, outcome.row, outcome.column, *numbers, outcome.verdict]


def _number(value: float) -> str:
    return f"{round(value, DECIMALS) + 0.0:.{DECIMALS}f}".rstrip("0").rstrip(".")


RENDERERS = {"markdown": checks_markdown, "csv": checks_csv, "json": checks_json}

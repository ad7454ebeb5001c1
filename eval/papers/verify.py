"""Recomputes numbers of a paper from other numbers it prints: the checks of `eval/papers/tables/*.toml`.

Arithmetic is decimal; only VBench's normalisation is in floating point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError, did_you_mean
from eval.papers import checks
from eval.papers.published import PublishedRow, Table, load_table, numbers
from eval.vbench import totals as vbench_totals

PERCENT = 100
SCORES = {
    "quality": vbench_totals.quality,
    "semantic": vbench_totals.semantic,
    "total": vbench_totals.total,
    "long_total": vbench_totals.long_total,
}
CheckVerdict = Literal["ok", "erratum known", "mismatch"]


class Cell(NamedTuple):
    """A printed number and what it should be. Row or column may be empty where the number is not of one cell."""

    row: str
    column: str
    printed: Decimal
    recomputed: Decimal


class NumberCheck(Config):
    """One check of one printed number."""

    table: str
    check: str
    row: str
    column: str
    printed: float
    recomputed: float
    difference: float  # printed - recomputed
    tolerance: float
    verdict: CheckVerdict


def verify(table_ids: Sequence[str]) -> list[NumberCheck]:
    """All checks of these tables, in order.

    Raises:
        RecordError: a check names a row or column that does not exist.
    """
    return [outcome for table_id in table_ids for outcome in verify_table(load_table(table_id))]


def verify_table(table: Table) -> list[NumberCheck]:
    """All checks of one table; a deviation beyond the tolerance is a mismatch unless an erratum covers the cell."""
    return [_outcome(table, check, cell) for check in table.checks for cell in cells(table, check)]


def _outcome(table: Table, check: checks.Check, cell: Cell) -> NumberCheck:
    difference = cell.printed - cell.recomputed
    fits = abs(difference) <= check.tolerance
    known = any(erratum.covers(cell.row, cell.column) for erratum in table.errata)
    return NumberCheck(
        table=table.id,
        check=describe(check),
        row=cell.row,
        column=cell.column,
        printed=float(cell.printed),
        recomputed=float(cell.recomputed),
        difference=float(difference),
        tolerance=float(check.tolerance),
        verdict="ok" if fits else "erratum known" if known else "mismatch",
    )


def cells(table: Table, check: checks.Check) -> Iterator[Cell]:
    """The printed numbers a check is about, each beside its recomputed value."""
    match check:
        case checks.Linear():
            yield from _linear(table, check)
        case checks.PrintedDeltas():
            yield from _deltas(table)
        case checks.VBench():
            yield from _vbench(table, check)
        case checks.VBenchConstants():
            yield from _constants(table, check)
        case checks.SampleMeans():
            yield from (
                Cell(s.row, s.column, _at(table, s.row, s.column), Decimal(sum(s.scores)) / len(s.scores))
                for s in table.samples
            )
        case checks.Multiples():
            yield from _multiples(table, check)
        case checks.AtMost():
            yield from _bounded(table, check)
        case checks.SumTo():
            yield from _sums(table, check)
        case checks.Same():
            yield from _same(table, check)
        case checks.Quotient():
            yield _quotient(table, check)
        case checks.Quoted():
            yield Cell(check.row, check.column, check.printed, _at(table, check.row, check.column))
        case checks.BestCount():
            yield Cell(check.row, "", check.printed, Decimal(_best_count(table, table.row(check.row))))


def describe(check: checks.Check) -> str:
    """The check in a few words."""
    match check:
        case checks.Linear():
            terms = " + ".join(name if weight == 1 else f"{weight} {name}" for name, weight in check.weights.items())
            terms = (
                terms if not check.constant else f"{terms} {'-' if check.constant < 0 else '+'} {abs(check.constant)}"
            )
            return f"({terms}) / {sum(check.weights.values())}" if check.mean else terms
        case checks.VBench():
            return f"VBench {check.score.replace('_', ' ')} from dimensions"
        case checks.Multiples():
            return f"whole multiple of 1/{check.of}"
        case checks.AtMost():
            return f"at most {check.bound}"
        case checks.SumTo():
            return f"each {check.along} sums to {check.expected}"
        case checks.Same():
            return f"as in {check.table}"
        case checks.Quotient():
            return f"text: {check.above[0]} / {check.below[0]}" + (" - 1, percent" if check.gain else "")
    return {
        "delta": "printed difference to the base",
        "vbench_constants": "constant of VBench",
        "samples": "mean of the printed scores",
        "quoted": "number in the text",
        "best_count": "text: columns in which the row is best",
    }[check.formula]


def _linear(table: Table, check: checks.Linear) -> Iterator[Cell]:
    for row, printed in numbers(table, check.column):
        total = sum((weight * _at(table, row.label, key) for key, weight in check.weights.items()), check.constant)
        yield Cell(row.label, check.column, printed, total / sum(check.weights.values()) if check.mean else total)


def _deltas(table: Table) -> Iterator[Cell]:
    for row in table.rows:
        for key, printed in row.delta.items():
            yield Cell(row.label, key, printed, _at(table, row.label, key) - _at(table, row.base or "", key))


def _vbench(table: Table, check: checks.VBench) -> Iterator[Cell]:
    sources = [table, *(load_table(name) for name in check.join)]
    for row, printed in numbers(table, check.column):
        scores = {
            key: float(value) / PERCENT for source in sources for key, value in _dimensions(source, row.label).items()
        }
        yield Cell(row.label, check.column, printed, Decimal(repr(round(PERCENT * SCORES[check.score](scores), 6))))


def _dimensions(table: Table, label: str) -> dict[str, Decimal]:
    published = next((row.published for row in table.rows if row.label == label), {})
    return {
        key: value for key, value in published.items() if key in vbench_totals.DIMENSIONS and isinstance(value, Decimal)
    }


def _constants(table: Table, check: checks.VBenchConstants) -> Iterator[Cell]:
    for column in table.columns:
        dimension = vbench_totals.DIMENSIONS[column.key]
        for label, value in (
            (check.low, dimension.low),
            (check.high, dimension.high),
            (check.weight, dimension.weight),
        ):
            yield Cell(label, column.key, _at(table, label, column.key), Decimal(repr(value)))


def _multiples(table: Table, check: checks.Multiples) -> Iterator[Cell]:
    for column in table.columns:
        for row, printed in numbers(table, column.key):
            yield Cell(row.label, column.key, printed, round(printed * check.of) / Decimal(check.of))


def _bounded(table: Table, check: checks.AtMost) -> Iterator[Cell]:
    for row, printed in numbers(table, check.column):
        yield Cell(row.label, check.column, printed, min(printed, _at(table, row.label, check.bound)))


def _sums(table: Table, check: checks.SumTo) -> Iterator[Cell]:
    if check.along == "row":
        for row in table.rows:
            yield Cell(
                row.label, "", sum((_at(table, row.label, key) for key in check.columns), Decimal(0)), check.expected
            )
    else:
        for key in check.columns:
            yield Cell("", key, sum((value for _, value in numbers(table, key)), Decimal(0)), check.expected)


def _same(table: Table, check: checks.Same) -> Iterator[Cell]:
    other = load_table(check.table)
    for here, there in check.rows.items():
        for key, other_key in check.columns.items():
            yield Cell(here, key, _at(table, here, key), _at(other, there, other_key))


def _quotient(table: Table, check: checks.Quotient) -> Cell:
    ratio = _at(table, *check.above) / _at(table, *check.below)
    return Cell(*check.above, check.printed, (ratio - 1) * PERCENT if check.gain else ratio)


def _best_count(table: Table, row: PublishedRow) -> int:
    """In how many columns the row is the best of its group."""
    rivals = [other.label for other in table.rows if other.group == row.group]
    count = 0
    for column in table.columns:
        values = {label: _at(table, label, column.key) for label in rivals}
        best = max(values.values()) if column.direction == "up" else min(values.values())
        count += values[row.label] == best
    return count


def _at(table: Table, label: str, key: str) -> Decimal:
    """The number printed in a cell."""
    row = next((row for row in table.rows if row.label == label), None)
    if row is None:
        labels = [row.label for row in table.rows]
        raise RecordError(f"{table.id}.toml", "checks", f"no row {label!r}", hint=did_you_mean(label, labels))
    value = row.published.get(key)
    if not isinstance(value, Decimal):
        raise RecordError(f"{table.id}.toml", "checks", f"row {label!r} prints no number in column {key!r}")
    return value

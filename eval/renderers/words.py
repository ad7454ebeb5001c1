"""The words of cells, heads, differences and notes, shared by all formats."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from eval.papers.published import Erratum
from eval.papers.table import EQUAL_WITHIN, Difference, Measured, TableView, ViewColumn
from eval.records.stats import MIN_PAIRS, MIN_UNITS

NOT_RUN = "not run"
DECIDED = ("holds", "fails", "agrees", "disagrees")  # verdicts that say something
NO_COUNTERPART = "—"
ERRATUM_MARK = "‡"
OTHER_PROMPTS_MARK = "§"
ARROWS = {"up": "↑", "down": "↓", "none": ""}
DECIMALS_EXACT = 3  # of a mean whose interval has no width
MAX_DECIMALS = 4  # finer than any seed repeats
BYTES = ("peak_memory",)  # metrics in bytes: shown in MiB, or in GiB where they are large
BYTE_UNITS = ((2.0**30, " GiB"), (2.0**20, " MiB"))
LARGE = 10_000  # effects from here on are shown as whole numbers
DIFFERENCE_HEADS = ("Row", "Base", "Column", "Published difference", "Measured difference [95 %]", "Verdict")
INTERVALS = (
    "Intervals are 95 %, two-way over seeds and prompts: variance components, Student's quantile with "
    "Satterthwaite's degrees of freedom; of one "
    "seed they are over prompts alone."
)
SEEDS_OF_ONE_TRAINING = (
    "The same weights under every seed, so seeds vary the sampling noise. A difference to one of these "
    "varies the tuned model's training and the "
    "noise, not the training of its base."
)
MARK_NOTE = (
    "Of the measured values the best is bold where its paired difference from every other row of the group has an "
    "interval without 0; the second is underlined on the same condition."
)
DIFFERENCE_NOTE = (
    "Differences are paired over seeds and prompts. `agrees`: the interval excludes 0 on the published side; "
    "`disagrees`: on the "
    f"other side; `undecided`: it contains 0, or there are under {MIN_PAIRS} pairs (under {MIN_UNITS} of "
    "values that a run yields once). "
    f"A published 0 agrees within {EQUAL_WITHIN:.0%} of the base."
)


def decimals(half_width: float) -> int:
    """Two significant digits of the half-width."""
    if half_width <= 0:
        return DECIMALS_EXACT
    return min(max(1 - math.floor(math.log10(half_width)), 0), MAX_DECIMALS)


def interval_decimals(low: float, high: float, *, signed: bool = True) -> int:
    """Decimals of an interval. Where a signed end would round to zero, as many more as show on which side it lies."""
    digits = decimals((high - low) / 2)
    for finer in range(digits, MAX_DECIMALS + 2) if signed else ():
        if all(round(end, finer) or not end for end in (low, high)):
            return finer
    return digits


def seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def shown_in(metric: str | None, value: float) -> tuple[float, str]:
    """The divisor and the unit that a value of a metric is shown with."""
    if metric not in BYTES:
        return 1.0, ""
    return next(((scale, unit) for scale, unit in BYTE_UNITS if abs(value) >= scale), BYTE_UNITS[-1])


def fixed(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with so many decimals; one that rounds to zero has no sign."""
    value = round(value, digits) + 0.0
    sign, comma = "+" if signed and value else "", "," if abs(value) >= LARGE else ""
    return f"{value:{sign}{comma}.{digits}f}"


def verdict_text(word: str, count: int) -> str:
    """A verdict; one that rests on a single seed says so."""
    return f"{word} ({seeds(1)})" if count == 1 and word in DECIDED else word


def published_text(cell: str, column: ViewColumn) -> str:
    """A published cell. Of a metric that is measured in bytes it carries its unit, as the measured one does."""
    has_number = any(letter.isdigit() for letter in cell)
    return f"{cell} {column.unit}" if column.unit and _unit_in_cells(column) and has_number else cell


def measured_text(measured: Measured | None, column: ViewColumn) -> str:
    if column.metric is None:
        return NO_COUNTERPART
    if measured is None:
        return NOT_RUN
    scale, unit = shown_in(column.metric, measured.mean)
    half_width = 0.0 if measured.low is None or measured.high is None else (measured.high - measured.low) / 2 / scale
    digits = decimals(half_width) if half_width or not unit else 1
    is_same = bool(unit) and not half_width  # every run took as many bytes
    interval = "" if measured.low is None or is_same else f" ± {fixed(half_width, digits)}"
    mark = f" {OTHER_PROMPTS_MARK}" if column.measured_on else ""
    return f"{fixed(measured.mean / scale, digits)}{interval}{unit} ({seeds(measured.n)}){mark}"


def heading(column: ViewColumn) -> str:
    """The published header, beside it the measured metric's own name where it is another: "HPSv3 / vq ↑"."""
    unit = f" ({column.unit})" if column.unit and not _unit_in_cells(column) else ""
    metric = "" if column.metric is None or _same_name(column) else f" / {column.metric}"
    return f"{column.label}{unit}{metric} {ARROWS[column.direction]}".rstrip()


def _same_name(column: ViewColumn) -> bool:
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in (column.label, column.metric or "")]
    return plain[0] == plain[1]


def _unit_in_cells(column: ViewColumn) -> bool:
    """Published and measured values have different units: a unit in the header would be wrong for one of them."""
    return column.metric in BYTES


def interval_text(mean: float, low: float | None, high: float | None, metric: str, *, signed: bool = True) -> str:
    """An effect on a metric with the ends of its interval, where it has one, in the unit the metric is shown in."""
    scale, unit = shown_in(metric, mean)
    numbers = [value / scale for value in (mean, low, high) if value is not None]
    digits = interval_decimals(numbers[1], numbers[2], signed=signed) if len(numbers) > 2 else DECIMALS_EXACT
    digits = 0 if abs(numbers[0]) >= LARGE else digits
    shown = [fixed(number, digits, signed=signed) for number in numbers]
    return f"{shown[0]}{unit}" if len(shown) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]{unit}"


def difference_cells(difference: Difference, column: ViewColumn) -> list[str]:
    """One line under DIFFERENCE_HEADS."""
    published, measured = difference.published, difference.measured
    return [
        difference.row,
        difference.base,
        heading(column),
        NO_COUNTERPART if published is None else "0" if published == 0 else f"{published:+.6g}",
        (difference.verdict or NO_COUNTERPART)
        if measured is None
        else f"{interval_text(measured.mean, measured.low, measured.high, column.metric or '')} ({seeds(measured.n)})",
        NO_COUNTERPART
        if difference.verdict is None
        else verdict_text(difference.verdict, 0 if measured is None else measured.n),
    ]


def difference_lines(view: TableView, differences: Sequence[Difference]) -> list[list[str]]:
    """The differences worth a line: in columns that exist on the backbone."""
    columns = {column.key: column for column in view.columns if column.metric is not None}
    return [
        difference_cells(difference, columns[difference.key]) for difference in differences if difference.key in columns
    ]


def notes(view: TableView, has_differences: bool) -> list[str]:
    """What a reader must know before comparing two numbers, the paper's errata included."""
    lines = [*_measured_notes(view), *([view.table.note] if view.table.note else []), *map(_erratum, view.table.errata)]
    return [*lines, DIFFERENCE_NOTE] if has_differences else lines


def _measured_notes(view: TableView) -> list[str]:
    played = [f"{column.label} is `{column.metric}`" for column in view.columns if column.metric is not None]
    if not played:
        return [f"As published; nothing here has a counterpart on `{view.backbone}`."]
    missing = [column.label for column in view.columns if column.metric is None]
    absent = f"; no counterpart ({NO_COUNTERPART}): {', '.join(missing)}" if missing else ""
    comparable = (
        "absolute values are not comparable with the published ones, the signs of the differences are"
        if view.backbone == "shapes"
        else "absolute values are comparable only where the protocol is the published one"
    )
    is_alone = any(cell is not None and cell.low is None for row in view.rows for cell in row.measured.values())
    alone = "; one prompt under one seed has none" if is_alone else ""
    return [
        (
            f"Cells: published / measured mean ± half-width of the 95 % interval (seeds){alone}. `{NOT_RUN}`: no "
            f"record exists. {INTERVALS}"
        ),
        f"Measured on `{view.backbone}`: {comparable}. On `{view.backbone}` {', '.join(played)}{absent}.",
        *([MARK_NOTE] if any(row.marks for row in view.rows) else []),
        *_protocol_notes(view),
        *([one_training_text(once)] if (once := [row.label for row in view.rows if row.trained_once]) else []),
    ]


def one_training_text(names: Sequence[str]) -> str:
    """What the seeds of rows or arms that were trained once are seeds of."""
    return f"One training seed: {', '.join(names)}. {SEEDS_OF_ONE_TRAINING}"


def _protocol_notes(view: TableView) -> list[str]:
    """What the measured numbers were made with, column by column, and where the published ones are of other prompts."""
    same: dict[str, list[str]] = {}
    others: dict[tuple[str, str], list[str]] = {}
    for column in view.columns:
        if column.measured_with:
            same.setdefault(column.measured_with, []).append(column.label)
        if column.measured_on:
            others.setdefault((column.measured_on, column.published_on), []).append(column.label)
    made = [f"{', '.join(labels)} on {text}" for text, labels in same.items()]
    apart = [f"{', '.join(labels)} on {here}, published on `{there}`" for (here, there), labels in others.items()]
    return [
        *([f"Measured: {'; '.join(made)}."] if made else []),
        *([f"{OTHER_PROMPTS_MARK} Measured on other prompts than published: {'; '.join(apart)}."] if apart else []),
    ]


def _erratum(erratum: Erratum) -> str:
    where = "; ".join(part for part in (", ".join(erratum.rows), ", ".join(erratum.columns)) if part)
    mark = f"{ERRATUM_MARK} " if erratum.columns else ""
    return f"{mark}Erratum ({where}): {erratum.note}" if where else f"Erratum: {erratum.note}"

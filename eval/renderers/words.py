"""The words of cells, heads, differences and notes, shared by all formats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.papers.published import Erratum
from eval.papers.table import EQUAL_WITHIN, Difference, Measured, TableView, ViewColumn
from eval.records.stats import MIN_PAIRS, MIN_UNITS

NOT_RUN = "not run"
NO_COUNTERPART = "—"
ERRATUM_MARK = "‡"
OTHER_PROMPTS_MARK = "§"
ARROWS = {"up": "↑", "down": "↓", "none": ""}
DECIMALS_EXACT = 3  # of a mean whose interval has no width
MAX_DECIMALS = 4  # finer than any seed repeats
SHOWN_IN = {"peak_memory": (2.0**20, " MiB")}  # metrics recorded in a unit too small to read
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


def seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def measured_text(measured: Measured | None, column: ViewColumn) -> str:
    if column.metric is None:
        return NO_COUNTERPART
    if measured is None:
        return NOT_RUN
    scale, unit = SHOWN_IN.get(column.metric, (1.0, ""))
    half_width = 0.0 if measured.low is None or measured.high is None else (measured.high - measured.low) / 2 / scale
    digits = decimals(half_width) if half_width or not unit else 1
    interval = "" if measured.low is None else f" ± {half_width:.{digits}f}"
    mark = f" {OTHER_PROMPTS_MARK}" if column.measured_on else ""
    return f"{measured.mean / scale:.{digits}f}{interval}{unit} ({seeds(measured.n)}){mark}"


def heading(column: ViewColumn) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.label}{unit} {ARROWS[column.direction]}".rstrip()


def interval_text(mean: float, low: float | None, high: float | None, metric: str, *, signed: bool = True) -> str:
    """An effect on a metric with the ends of its interval, where it has one, in the unit the metric is shown in."""
    scale, unit = SHOWN_IN.get(metric, (1.0, ""))
    numbers = [value / scale for value in (mean, low, high) if value is not None]
    digits = decimals((numbers[2] - numbers[1]) / 2) if len(numbers) > 2 else DECIMALS_EXACT
    form = ("+" if signed else "") + (",.0f" if abs(numbers[0]) >= LARGE else f".{digits}f")
    shown = [f"{number:{form}}" for number in numbers]
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
        difference.verdict or NO_COUNTERPART,
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

"""Joins a published table with measured records: cells, differences and their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Literal

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError
from eval.papers.marks import Mark, measured_marks
from eval.papers.published import Cell, Column, ColumnDirection, PublishedRow, Table
from eval.papers.total_parts import refuse_unlike_parts
from eval.records.comparable import BySeed, Cells, check_backbone, matrix, paired, refuse_mixed
from eval.records.protocol_text import measured_with, on_prompt_set, prompts_text, trained_once
from eval.records.stats import Interval, has_interval, may_decide, mean_interval, paired_difference, verdict
from eval.records.store import Backbone, Record

# A published difference of zero (frames per second) counts as reproduced within this share of the base: claim
# `as-throughput`.
EQUAL_WITHIN = 0.02
DifferenceVerdict = Literal["agrees", "disagrees", "undecided", "not run", "not comparable"]


class Measured(Config):
    """A measured cell: mean over seeds with its 95 % interval."""

    mean: float
    low: float | None  # none of one prompt under one seed
    high: float | None
    n: int
    backbone: Backbone


class ViewColumn(Config):
    key: str
    label: str
    direction: ColumnDirection
    metric: str | None = Field(exclude=True)  # on the view's backbone
    group: str = Field("", exclude=True)
    unit: str = Field("", exclude=True)
    measured_with: str = Field("", exclude=True)  # the protocol of its records, in words
    measured_on: str = Field("", exclude=True)  # their prompts, where the published numbers are of others:
    published_on: str = Field("", exclude=True)


class ViewRow(Config):
    label: str
    group: str
    published: dict[str, float | None]
    measured: dict[str, Measured | None]
    printed: dict[str, str] = Field(exclude=True)  # published cells as printed, text included
    delta: dict[str, Decimal] = Field(exclude=True)  # printed beside them
    trained_once: bool = Field(exclude=True)  # the same weights under every seed
    marks: dict[str, Mark] = Field(exclude=True)  # of the measured cells, by column


class TableView(Config):
    """A table joined with records. `model_dump()` is the stable JSON form; excluded fields only help to print."""

    id: str
    title: str
    source: str
    columns: list[ViewColumn]
    rows: list[ViewRow]
    backbone: Backbone = Field(exclude=True)
    table: Table = Field(exclude=True)


class Difference(Config):
    """Tuned row minus its base in one column. No verdict where the column has no counterpart or the paper no number."""

    row: str
    base: str
    key: str
    published: float | None
    measured: Measured | None
    verdict: DifferenceVerdict | None


def build(table: Table, records: Iterable[Record], backbone: str = "shapes") -> TableView:
    """Join the table with the newest records of one backbone.

    Raises:
        IntegrityError: records of one column, or of a total and its parts, of other prompts or protocol.
        RecordError: records of one column of several benchmarks, or of another direction than the column's.
    """
    cells = Cells(records, check_backbone(backbone))
    by_column = {column.key: _column_cells(table, column, cells) for column in table.columns}
    columns = [_view_column(table, column, by_column[column.key], cells.backbone) for column in table.columns]
    marks = {column.key: _marks(table, column, by_column[column.key]) for column in table.columns}
    rows = []
    for row in table.rows:
        own = {key: by_row[row.label] for key, by_row in by_column.items()}
        own_marks: dict[str, Mark] = {key: by_row[row.label] for key, by_row in marks.items() if row.label in by_row}
        rows.append(_view_row(table, row, own, cells.backbone, own_marks))
    return TableView(
        id=table.id,
        title=table.title,
        source=table.source,
        columns=columns,
        rows=rows,
        backbone=cells.backbone,
        table=table,
    )


def differences(table: Table, records: Iterable[Record], backbone: str = "shapes") -> list[Difference]:
    """Tuned minus base for every row that names a base and can be measured, per column: published, measured on the same
    prompts, verdict.
    """
    cells = Cells(records, check_backbone(backbone))
    pairs = [(row, table.row(row.base)) for row in table.rows if row.base is not None]
    measurable = [(row, base) for row, base in pairs if cells.backbone in row.arm and cells.backbone in base.arm]
    return [_difference(table, row, base, column, cells) for row, base in measurable for column in table.columns]


def _column_cells(table: Table, column: Column, cells: Cells) -> dict[str, BySeed]:
    """The records of every row's cell in a column; they must have been made alike."""
    by_row = {row.label: _find(table, row, column, cells) for row in table.rows}
    refuse_mixed(table.id, column.key, by_row, table.varies)
    for label, by_seed in by_row.items():
        refuse_unlike_parts(table.id, f"{label}, {column.key}", by_seed, cells)
    return by_row


def _find(table: Table, row: PublishedRow, column: Column, cells: Cells) -> BySeed:
    arm, metric = row.arm.get(cells.backbone), column.metric(cells.backbone)
    if arm is None or metric is None:
        return {}
    records = cells.find(arm, metric, table.benchmark_of(column, cells.backbone, row))
    if wrong := [record for record in records.values() if record.direction != column.direction]:
        what = f"direction {wrong[0].direction!r} in the records, {column.direction!r} in column {column.key!r}"
        raise RecordError(arm, metric, what)
    return records


def _view_column(table: Table, column: Column, by_row: Mapping[str, BySeed], backbone: Backbone) -> ViewColumn:
    records, published = (
        [record for by_seed in by_row.values() for record in by_seed.values()],
        table.prompt_set_of(column, backbone) or "",
    )
    is_other = bool(published) and not on_prompt_set(records, published)
    return ViewColumn(
        key=column.key,
        label=column.label,
        direction=column.direction,
        metric=column.metric(backbone),
        group=column.group,
        unit=column.unit,
        measured_with=measured_with(records),
        measured_on=prompts_text(records) if is_other else "",
        published_on=published if is_other else "",
    )


def _marks(table: Table, column: Column, by_row: Mapping[str, BySeed]) -> dict[str, Mark]:
    """Marks of the measured cells of a column, by row: each group by itself."""
    marks: dict[str, Mark] = {}
    for group in {row.group for row in table.rows if table.comparable}:
        of_group = {row.label: by_row[row.label] for row in table.rows if row.group == group and by_row[row.label]}
        marks |= measured_marks(of_group, column.direction)
    return marks


def _view_row(
    table: Table, row: PublishedRow, by_column: dict[str, BySeed], backbone: Backbone, marks: dict[str, Mark]
) -> ViewRow:
    return ViewRow(
        label=row.label,
        group=row.group,
        published={column.key: _number(row.published.get(column.key)) for column in table.columns},
        measured={key: _measured(by_seed, backbone) for key, by_seed in by_column.items()},
        printed={key: str(value) for key, value in row.published.items()},
        delta=row.delta,
        trained_once=bool(trained_once(record for by_seed in by_column.values() for record in by_seed.values())),
        marks=marks,
    )


def _number(cell: Cell | None) -> float | None:
    return float(cell) if isinstance(cell, Decimal) else None


def _measured(records: BySeed, backbone: Backbone) -> Measured | None:
    scores_SP = matrix(records.values())
    return None if np.isnan(scores_SP).all() else _as_measured(mean_interval(scores_SP), scores_SP, backbone)


def _difference(table: Table, row: PublishedRow, base: PublishedRow, column: Column, cells: Cells) -> Difference:
    tuned_cell, base_cell = row.published.get(column.key), base.published.get(column.key)
    delta = tuned_cell - base_cell if isinstance(tuned_cell, Decimal) and isinstance(base_cell, Decimal) else None
    measured, outcome = None, None
    if column.metric(cells.backbone) is not None:
        measured, outcome = _compare(
            _find(table, base, column, cells), _find(table, row, column, cells), delta, cells.backbone
        )
    published = None if delta is None else float(delta)
    return Difference(
        row=row.label, base=base.label, key=column.key, published=published, measured=measured, verdict=outcome
    )


def _compare(
    base: BySeed, tuned: BySeed, delta: Decimal | None, backbone: Backbone
) -> tuple[Measured | None, DifferenceVerdict | None]:
    """Paired difference over the seeds both have, and its verdict."""
    if not base or not tuned:
        return None, "not run"
    pair = paired(base, tuned)
    if pair is None:
        return None, "not comparable"
    base_SP, tuned_SP = pair
    interval, difference_SP = paired_difference(base_SP, tuned_SP), tuned_SP - base_SP
    if delta is None:
        return _as_measured(interval, difference_SP, backbone), None
    if not may_decide(difference_SP):
        return _as_measured(interval, difference_SP, backbone), "undecided"
    equal_within = EQUAL_WITHIN * abs(float(np.nanmean(base_SP)))
    return _as_measured(interval, difference_SP, backbone), verdict(interval, float(delta), equal_within)


def _as_measured(interval: Interval, scores_SP: np.ndarray, backbone: Backbone) -> Measured:
    low, high = (interval.low, interval.high) if has_interval(scores_SP) else (None, None)
    return Measured(mean=interval.mean, low=low, high=high, n=interval.n, backbone=backbone)

"""Published tables as data: the TOML's classes, and the joining of its rows and columns with measured records. Formats nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from decimal import Decimal
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError, did_you_mean
from eval.stats import Interval, cluster_bootstrap, independent_units, paired_difference, verdict
from eval.store import BACKBONES, Backbone, Direction, Record, latest

# A published difference of zero (frames per second) counts as reproduced within this share of the base: claim `as-throughput`.
EQUAL_WITHIN = 0.02
# With fewer pairs, all of one sign by chance is likelier than 5 % (5 pairs: 2 / 2^5 = 6 %), so no interval may decide.
MIN_PAIRS = 6
DifferenceVerdict = Literal["agrees", "disagrees", "undecided", "not run", "not comparable"]


class Column(Config):
    """A published column and the metric that plays it on each backbone; no metric, no counterpart."""

    key: str
    label: str
    direction: Direction
    shapes: str | None = None
    wan: str | None = None

    def metric(self, backbone: Backbone) -> str | None:
        return self.shapes if backbone == "shapes" else self.wan


class Row(Config):
    """A published row. Decimals keep the digits as printed."""

    label: str
    group: str = ""
    published: dict[str, Decimal]
    arm: dict[Backbone, str] = Field(default_factory=dict)
    base: str | None = None


class Table(Config):
    """One published table."""

    id: str
    title: str
    source: str
    note: str = ""
    benchmark: dict[Backbone, str] = Field(default_factory=dict)  # only records of it are used; none named: any, but only one
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keys, labels = [column.key for column in self.columns], [row.label for row in self.rows]
        _refuse_repeats("column key", keys)
        _refuse_repeats("row label", labels)
        for row in self.rows:
            if unknown := sorted(set(row.published) - set(keys)):
                raise ValueError(f"row {row.label!r}: published: no column {unknown[0]!r}; {did_you_mean(unknown[0], keys)}")
            if row.base is not None and row.base not in labels:
                raise ValueError(f"row {row.label!r}: base: no row {row.base!r}; {did_you_mean(row.base, labels)}")
        return self

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)


class Measured(Config):
    """A measured cell: mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int
    backbone: Backbone


class ViewColumn(Config):
    key: str
    label: str
    direction: Direction
    metric: str | None = Field(exclude=True)  # on the view's backbone


class ViewRow(Config):
    label: str
    group: str
    published: dict[str, float | None]
    measured: dict[str, Measured | None]
    printed: dict[str, str] = Field(exclude=True)  # published values with their digits


class TableView(Config):
    """A table joined with records. `model_dump()` is the stable JSON form; excluded fields only help to print."""

    id: str
    title: str
    source: str
    columns: list[ViewColumn]
    rows: list[ViewRow]
    backbone: Backbone = Field(exclude=True)
    note: str = Field(exclude=True)


class Difference(Config):
    """Tuned row minus its base in one column. No verdict where the column has no counterpart or the paper no number."""

    row: str
    base: str
    key: str
    published: float | None
    measured: Measured | None
    verdict: DifferenceVerdict | None


def list_tables() -> list[str]:
    """The ids of all tables, in reading order."""
    return sorted((file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml")), key=_reading_order)


def load_table(table_id: str) -> Table:
    """The table of this id, checked."""
    known = list_tables()
    if table_id not in known:
        raise RecordError("table", table_id, "no such table", hint=did_you_mean(table_id, known))
    return parse_table((_folder() / f"{table_id}.toml").read_text(encoding="utf-8"), f"{table_id}.toml")


def parse_table(text: str, where: str) -> Table:
    """A table from TOML text; `where` names it in errors and must be `<id>.toml`."""
    try:
        table = Table.model_validate(tomllib.loads(text, parse_float=Decimal))
    except tomllib.TOMLDecodeError as error:
        raise RecordError(where, "", f"not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(where, ".".join(str(part) for part in first["loc"]), first["msg"]) from error
    if f"{table.id}.toml" != where:
        raise RecordError(where, "id", f"found {table.id!r}, must be the file's name")
    return table


def build(table: Table, records: Iterable[Record], backbone: str = "shapes") -> TableView:
    """Join the table with the newest records of one backbone."""
    cells = _Cells(table, records, check_backbone(backbone))
    columns = [ViewColumn(key=c.key, label=c.label, direction=c.direction, metric=c.metric(cells.backbone)) for c in table.columns]
    rows = [_view_row(table, row, cells) for row in table.rows]
    return TableView(id=table.id, title=table.title, source=table.source, columns=columns, rows=rows, backbone=cells.backbone, note=table.note)


def differences(table: Table, records: Iterable[Record], backbone: str = "shapes") -> list[Difference]:
    """Tuned minus base for every row that names a base, per column: published, measured on the same seeds and prompts, verdict."""
    cells = _Cells(table, records, check_backbone(backbone))
    tuned = [row for row in table.rows if row.base is not None]
    return [_difference(row, table.row(row.base or ""), column, cells) for row in tuned for column in table.columns]


def check_backbone(name: str) -> Backbone:
    for backbone in BACKBONES:
        if name == backbone:
            return backbone
    raise RecordError("backbone", name, f"unknown backbone, allowed: {', '.join(BACKBONES)}")


class _Cells:
    """The records of one table on one backbone, found by row and column."""

    def __init__(self, table: Table, records: Iterable[Record], backbone: Backbone) -> None:
        self.backbone: Backbone = backbone
        benchmark = table.benchmark.get(backbone)
        wanted = {row.arm[backbone] for row in table.rows if backbone in row.arm}
        ours = [r for r in records if r.backbone == backbone and r.arm in wanted and benchmark in (None, r.benchmark)]
        self._by_cell: dict[tuple[str, str], list[Record]] = {}
        for record in latest(ours):
            self._by_cell.setdefault((record.arm, record.metric), []).append(record)

    def find(self, row: Row, column: Column) -> dict[int, Record]:
        """Comparable records of a cell by seed: those made under the conditions of the newest one."""
        found = self._by_cell.get((row.arm.get(self.backbone, ""), column.metric(self.backbone) or ""), [])
        if not found:
            return {}
        _check_belongs(found, column)
        newest = max(found, key=lambda record: record.created)
        kept = {record.seed: record for record in found if record.conditions == newest.conditions}
        return dict(sorted(kept.items()))


def _check_belongs(records: list[Record], column: Column) -> None:
    """Refuse a cell whose records mean different things."""
    first = records[0]
    if len(benchmarks := sorted({record.benchmark for record in records})) > 1:
        hint = "name one under [benchmark] in the table's TOML"
        raise RecordError(first.arm, first.metric, f"records of several benchmarks: {', '.join(benchmarks)}", hint=hint)
    if wrong := [record for record in records if record.direction != column.direction]:
        what = f"direction {wrong[0].direction!r} in the records, {column.direction!r} in column {column.key!r}"
        raise RecordError(first.arm, first.metric, what)


def _view_row(table: Table, row: Row, cells: _Cells) -> ViewRow:
    keys = [column.key for column in table.columns]
    return ViewRow(
        label=row.label,
        group=row.group,
        published={key: float(row.published[key]) if key in row.published else None for key in keys},
        measured={column.key: _measured(cells.find(row, column), cells.backbone) for column in table.columns},
        printed={key: str(value) for key, value in row.published.items()},
    )


def _measured(records: dict[int, Record], backbone: Backbone) -> Measured | None:
    scores_SP = _matrix(records.values())
    return None if np.isnan(scores_SP).all() else _as_measured(cluster_bootstrap(scores_SP), backbone)


def _difference(row: Row, base: Row, column: Column, cells: _Cells) -> Difference:
    delta = row.published[column.key] - base.published[column.key] if column.key in row.published and column.key in base.published else None
    measured, outcome = None, None
    if column.metric(cells.backbone) is not None:
        measured, outcome = _compare(cells.find(base, column), cells.find(row, column), delta, cells.backbone)
    published = None if delta is None else float(delta)
    return Difference(row=row.label, base=base.label, key=column.key, published=published, measured=measured, verdict=outcome)


def _compare(
    base: dict[int, Record], tuned: dict[int, Record], delta: Decimal | None, backbone: Backbone
) -> tuple[Measured | None, DifferenceVerdict | None]:
    """Paired difference over the seeds both have, and its verdict."""
    if not base or not tuned:
        return None, "not run"
    seeds = [seed for seed in base if seed in tuned and base[seed].conditions == tuned[seed].conditions]
    if not seeds:
        return None, "not comparable"
    base_SP, tuned_SP = np.split(_matrix([base[s] for s in seeds] + [tuned[s] for s in seeds]), 2)
    if np.isnan(tuned_SP - base_SP).all():
        return None, "not comparable"
    interval = paired_difference(base_SP, tuned_SP)
    if delta is None:
        return _as_measured(interval, backbone), None
    if independent_units(tuned_SP - base_SP) < MIN_PAIRS:
        return _as_measured(interval, backbone), "undecided"
    equal_within = EQUAL_WITHIN * abs(float(np.nanmean(base_SP)))
    return _as_measured(interval, backbone), verdict(interval, float(delta), equal_within)


def _matrix(records: Iterable[Record]) -> np.ndarray:
    """(S, P) scores, NaN for null; (0, 0) of no records."""
    held = list(records)
    lengths = {len(record.scores) for record in held}
    if len(lengths) > 1:
        what = f"{held[0].metric}: records of one prompt set hold {' and '.join(str(n) for n in sorted(lengths))} scores"
        raise RecordError(held[0].arm, "", what, hint="evaluate these seeds again")
    return np.array([record.scores for record in held], dtype=float).reshape(len(held), max(lengths, default=0))


def _as_measured(interval: Interval, backbone: Backbone) -> Measured:
    return Measured(mean=interval.mean, low=interval.low, high=interval.high, n=interval.n, backbone=backbone)


def _refuse_repeats(what: str, names: list[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} {repeated[0]!r} is used twice")


def _folder() -> Traversable:
    return resources.files("eval") / "tables"


def _reading_order(table_id: str) -> list[str | int]:
    """`x-2` before `x-10`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", table_id)]

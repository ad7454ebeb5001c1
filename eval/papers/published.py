"""Published tables as data: the classes of `eval/papers/tables/*.toml`, how they are found and read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError, did_you_mean
from eval.papers.checks import Check
from eval.records import data_file
from eval.records.store import Backbone

ALL, ABLATIONS = "all", "ablations"
# "none": a setting, a name or a count that no row is better for.
ColumnDirection = Literal["up", "down", "none"]
Cell = Decimal | str  # decimals keep the digits as printed; text where the paper prints no number ("OOM")


class Column(Config):
    """A published column and the metric that plays it on each backbone; no metric, no counterpart."""

    key: str
    label: str
    direction: ColumnDirection
    group: str = ""  # heading above several columns
    unit: str = ""
    shapes: str | None = None
    wan: str | None = None
    benchmark: dict[Backbone, str] = Field(default_factory=dict)  # where it differs from the table's
    prompt_set: dict[Backbone, str] = Field(default_factory=dict)  # where it differs from the table's

    def metric(self, backbone: Backbone) -> str | None:
        return self.shapes if backbone == "shapes" else self.wan


class PublishedRow(Config):
    """A published row, without cells where a figure prints no numbers.

    `delta` holds the differences to `base` printed beside the values.
    """

    label: str
    group: str = ""
    published: dict[str, Cell] = Field(default_factory=dict)
    delta: dict[str, Decimal] = Field(default_factory=dict)
    arm: dict[Backbone, str] = Field(default_factory=dict)
    external: bool = (
        False  # a model that is neither trained nor imported here: it is measured from a folder of its videos
    )
    base: str | None = None
    benchmark: dict[Backbone, str] = Field(default_factory=dict)  # of its records, where it is not the column's


class Erratum(Config):
    """Printed numbers that do not add up: kept as printed, marked, explained. No rows (or columns) named: all of
    them.
    """

    rows: list[str] = Field(default_factory=list)
    columns: list[str] = Field(default_factory=list)
    note: str

    def covers(self, row: str, column: str) -> bool:
        """Whether it is about this cell. One that names neither rows nor columns is about the paper's text."""
        if not self.rows and not self.columns:
            return not row or not column
        return (not self.rows or row in self.rows) and (not self.columns or column in self.columns)


class Samples(Config):
    """The per-sample scores behind a cell, where the paper prints them; each is one digit."""

    row: str
    column: str
    scores: list[int] = Field(min_length=1)

    @field_validator("scores", mode="before")
    @classmethod
    def _digits(cls, value: object) -> object:
        return [int(digit) for digit in value] if isinstance(value, str) and value.isdecimal() else value


class Table(Config):
    """One published table."""

    id: str
    title: str
    source: str
    note: str = ""
    row_label: str = "Method"  # heading of the row labels
    comparable: bool = True  # rows are alternatives, so that one is best; false: aspects, test sets, settings
    transposed: bool = False  # the paper prints rows as columns; so do we
    ablation: bool = False
    varies: tuple[str, ...] = ()  # of a record's conditions, those the rows differ in: sizes that are compared
    benchmark: dict[Backbone, str] = Field(
        default_factory=dict
    )  # only records of it are used; none named: any, but only one
    prompt_set: dict[Backbone, str] = Field(
        default_factory=dict
    )  # of the published numbers, as `eval/prompt_sets/` names it; none: not stated
    columns: list[Column] = Field(min_length=1)
    rows: list[PublishedRow] = Field(min_length=1)
    errata: list[Erratum] = Field(default_factory=list)
    samples: list[Samples] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keys, labels = [column.key for column in self.columns], [row.label for row in self.rows]
        _refuse_repeats("column key", keys)
        _refuse_repeats("row label", labels)
        for row in self.rows:
            _check_name("column", {*row.published, *row.delta}, keys, f"row {row.label!r}: published")
            _check_name("row", {row.base} - {None}, labels, f"row {row.label!r}: base")
            if row.delta and row.base is None:
                raise ValueError(f"row {row.label!r}: delta: needs a base")
        for item in self.errata:
            _check_name("row", item.rows, labels, "errata: rows")
            _check_name("column", item.columns, keys, "errata: columns")
        for item in self.samples:
            _check_name("row", [item.row], labels, "samples: row")
            _check_name("column", [item.column], keys, "samples: column")
        return self

    @property
    def paper(self) -> str:
        return paper_of(self.id)

    def benchmark_of(self, column: Column, backbone: Backbone, row: PublishedRow | None = None) -> str | None:
        own = {} if row is None else row.benchmark
        return own.get(backbone, column.benchmark.get(backbone, self.benchmark.get(backbone)))

    def prompt_set_of(self, column: Column, backbone: Backbone) -> str | None:
        return column.prompt_set.get(backbone, self.prompt_set.get(backbone))

    def row(self, label: str) -> PublishedRow:
        return next(row for row in self.rows if row.label == label)

    def column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)


def paper_of(table_id: str) -> str:
    """`reward-forcing` of `reward-forcing-6`."""
    return table_id.rpartition("-")[0]


def list_tables() -> list[str]:
    """The ids of all tables, in reading order."""
    return sorted(
        (file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml")),
        key=_reading_order,
    )


def select(name: str) -> list[str]:
    """The ids a name stands for: itself, all tables of a paper, all ablations, or all tables.

    Raises:
        RecordError: no table, paper or set of this name.
    """
    known = list_tables()
    if name in known:
        return [name]
    if name == ABLATIONS:
        return [table.id for table in map(load_table, known) if table.ablation]
    table_ids = known if name == ALL else [table_id for table_id in known if paper_of(table_id) == name]
    if not table_ids:
        papers = {paper_of(table_id) for table_id in known}
        raise RecordError(
            "table", name, "no such table or paper", hint=did_you_mean(name, {*known, *papers, ALL, ABLATIONS})
        )
    return table_ids


def load_table(table_id: str) -> Table:
    """The table of this id, checked."""
    known = list_tables()
    if table_id not in known:
        raise RecordError("table", table_id, "no such table", hint=did_you_mean(table_id, known))
    return parse_table((_folder() / f"{table_id}.toml").read_text(encoding="utf-8"), f"{table_id}.toml")


def parse_table(text: str, where: str) -> Table:
    """A table from TOML text; `where` names it in errors and must be `<id>.toml`."""
    table = data_file.parse(Table, text, where, number=Decimal)
    if f"{table.id}.toml" != where:
        raise RecordError(where, "id", f"found {table.id!r}, must be the file's name")
    return table


def numbers(table: Table, key: str) -> Iterator[tuple[PublishedRow, Decimal]]:
    """The rows that print a number in this column, with it."""
    for row in table.rows:
        value = row.published.get(key)
        if isinstance(value, Decimal):
            yield row, value


def _check_name(what: str, names: Iterable[str | None], allowed: list[str], where: str) -> None:
    for name in sorted(str(item) for item in names):
        if name not in allowed:
            raise ValueError(f"{where}: no {what} {name!r}; {did_you_mean(name, allowed)}")


def _refuse_repeats(what: str, names: list[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} {repeated[0]!r} is used twice")


def _folder() -> Traversable:
    return resources.files("eval.papers") / "tables"


def _reading_order(table_id: str) -> list[str | int]:
    """`x-2` before `x-10`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", table_id)]

"""The `[[checks]]` of a table's TOML: what to recompute from printed numbers. `eval.papers.verify` does the arithmetic.

A check names the printed cells it recomputes and the cells it recomputes them from, by row label and column key.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from astro_cli.config.base import Config


class _Check(Config):
    tolerance: Decimal = Field(ge=0)  # what rounding or truncation of the printed inputs and output can explain


class Linear(_Check):
    """column = sum of weight x column + constant; with `mean`, divided by the sum of the weights."""

    formula: Literal["linear"]
    column: str
    weights: dict[str, Decimal] = Field(min_length=1)
    constant: Decimal = Decimal(0)
    mean: bool = False


class PrintedDeltas(_Check):
    """Every printed delta = the row minus its base."""

    formula: Literal["delta"]


class VBench(_Check):
    """column = 100 x a VBench score of the per-dimension columns, of this table and of the rows of the same label in
    the tables of `join`.
    """

    formula: Literal["vbench"]
    column: str
    score: Literal["quality", "semantic", "total", "long_total"]
    join: list[str] = Field(default_factory=list)


class VBenchConstants(_Check):
    """The rows named hold the constants that `eval.vbench.totals` computes with; columns are dimensions."""

    formula: Literal["vbench_constants"]
    low: str
    high: str
    weight: str


class SampleMeans(_Check):
    """Every list of per-sample scores the paper prints has the printed mean."""

    formula: Literal["samples"]


class Multiples(_Check):
    """Every cell is a whole number of n-ths: a mean of n integer ratings."""

    formula: Literal["multiple"]
    of: int = Field(gt=0)


class AtMost(_Check):
    """column <= bound in every row, by the definition of what the two print."""

    formula: Literal["at_most"]
    column: str
    bound: str


class SumTo(_Check):
    """The cells of every row, or of every column, of these columns add up to one number."""

    formula: Literal["sum_to"]
    along: Literal["row", "column"]
    columns: list[str] = Field(min_length=1)
    expected: Decimal


class Same(_Check):
    """The same result is printed in another table: {row here: row there}, {column here: column there}."""

    formula: Literal["same"]
    table: str
    rows: dict[str, str] = Field(min_length=1)
    columns: dict[str, str] = Field(min_length=1)


class Quotient(_Check):
    """A ratio of two cells that the text quotes; `gain`: as the percentage above 1."""

    formula: Literal["quotient"]
    above: tuple[str, str]  # row, column
    below: tuple[str, str]
    printed: Decimal
    gain: bool = False


class Quoted(_Check):
    """A cell that the text quotes."""

    formula: Literal["quoted"]
    row: str
    column: str
    printed: Decimal


class BestCount(_Check):
    """In how many columns a row is the best of its group, as the text counts them."""

    formula: Literal["best_count"]
    row: str
    printed: Decimal


Check = Annotated[
    Linear
    | PrintedDeltas
    | VBench
    | VBenchConstants
    | SampleMeans
    | Multiples
    | AtMost
    | SumTo
    | Same
    | Quotient
    | Quoted
    | BestCount,
    Field(discriminator="formula"),
]

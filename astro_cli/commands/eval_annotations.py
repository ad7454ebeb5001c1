"""`astro eval gsb`, `likert` and `rank`: print the statistics of a file of human judgements, from `eval.human`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from astro_cli.commands.console import echo, plain_console
from astro_cli.commands.eval_compare import TABLE_WIDTH, Format
from astro_cli.config.errors import RecordError

if TYPE_CHECKING:
    from astro_cli.config.base import Config  # pydantic, which --help does without
    from eval.human.likert import Likert, Paired
    from eval.human.rank import Ranked

FILE_HELP = "CSV whose first line names the columns, or JSON lines as the page of `astro study build` saves them."
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help=FILE_HELP)]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print it.")]


def gsb(file: FileArgument, format: FormatOption = Format.table) -> None:
    """Good / same / bad: win rate G/(G+B), preference (G+S/2)/n, margin (G-B)/n, Wilson intervals, sign test.

    Columns: verdict (G, S, B), and optionally criterion, arm and other (G: arm is better than other).

    Example: astro eval gsb judgements.csv
    """
    from eval.human.gsb import read

    rows = read(file)
    if format is Format.json:
        echo(json.dumps([{"n": row.n, **row.model_dump()} for row in rows], indent=2, allow_nan=False))
        return
    named = ["arm", "against"] if any(row.arm for row in rows) else []
    counted = ("n", "G", "S", "B", "win rate", "95 %", "preference", "95 %", "margin", "sign test p")
    table = Table(*named, "criterion", *counted)
    for row in rows:
        counts = [str(value) for value in (row.n, row.good, row.same, row.bad)]
        won = _interval(row.win_rate, row.win_rate_low, row.win_rate_high)
        preferred = _interval(row.preference, row.preference_low, row.preference_high)
        arms = [row.arm, row.other][: len(named)]
        table.add_row(*arms, row.criterion, *counts, *won, *preferred, f"{row.margin:+.1%}", f"{row.p:.3g}")
    _print(table)


def likert(
    file: FileArgument,
    format: FormatOption = Format.table,
    scale: Annotated[str, typer.Option("--scale", metavar="LOW-HIGH", help="Lowest and highest score.")] = "1-5",
    threshold: Annotated[
        int | None, typer.Option("--threshold", help="Score from which a rating counts as high; default: the top half.")
    ] = None,
) -> None:
    """Likert ratings: mean per arm and criterion with an interval over items, share of high ratings with its Wilson
    interval.

    Arms rated for the same items (by the same raters, where they are named) are compared in pairs, with a sign test.

    Columns: criterion, score, and optionally arm, item (the video) and rater.

    Example: astro eval likert ratings.csv --scale 1-4
    """
    from eval.human.likert import read

    ratings = read(file, parse_scale(scale), threshold)
    if format is Format.json:
        data = {"arms": _dumped(ratings.arms), "pairs": _dumped(ratings.pairs)}
        echo(json.dumps(data, indent=2, allow_nan=False))
        return
    _print(_arms_table(ratings.arms))
    if ratings.pairs:
        _print(_pairs_table(ratings.pairs))


def rank(file: FileArgument, format: FormatOption = Format.table) -> None:
    """Rankings: mean rank per arm and criterion (1 is best) with an interval over items, share of first places, sign
    tests of every two arms, and Friedman's test of all.

    Columns, a row per ranking and arm: arm, item (the prompt), rank, and optionally criterion and rater.

    Example: astro eval rank ranks.csv
    """
    from eval.human.rank import read

    ranks = read(file)
    if format is Format.json:
        parts = {"arms": ranks.arms, "pairs": ranks.pairs, "tests": ranks.tests}
        data = {name: _dumped(rows) for name, rows in parts.items()}
        echo(json.dumps(data, indent=2, allow_nan=False))
        return
    _print(_ranks_table(ranks.arms))
    if ranks.pairs:
        _print(_pairs_table(ranks.pairs))
    for test in ranks.tests:
        echo(f"{test.criterion or 'all'}: Friedman's chi2 {test.statistic:.2f}, p {test.p:.3g}")


def _dumped(rows: Sequence[Config]) -> list[dict[str, Any]]:
    return [row.model_dump() for row in rows]


def _ranks_table(rows: list[Ranked]) -> Table:
    table = Table("arm", "criterion", "mean rank", "95 %", "n", "items", "first")
    for row in rows:
        mean = (f"{row.mean:.3f}", f"{row.low:.3f} .. {row.high:.3f}", str(row.n), str(row.items))
        table.add_row(row.arm, row.criterion, *mean, f"{row.first:.1%}")
    return table


def _arms_table(rows: list[Likert]) -> Table:
    table = Table("arm", "criterion", "mean", "95 %", "n", "items", f"{rows[0].threshold} or more", "95 %")
    for row in rows:
        mean = (f"{row.mean:.3f}", f"{row.low:.3f} .. {row.high:.3f}", str(row.n), str(row.items))
        table.add_row(row.arm, row.criterion, *mean, *_interval(row.share, row.share_low, row.share_high))
    return table


def _pairs_table(pairs: list[Paired]) -> Table:
    table = Table("criterion", "arm", "against", "wins", "ties", "losses", "win rate", "95 %", "sign test p")
    for pair in pairs:
        counts = [str(value) for value in (pair.wins, pair.ties, pair.losses)]
        won = _interval(pair.win_rate, pair.win_rate_low, pair.win_rate_high)
        table.add_row(pair.criterion, pair.arm, pair.other, *counts, *won, f"{pair.p:.3g}")
    return table


def parse_scale(text: str) -> tuple[int, int]:
    """ "1-4" -> (1, 4).

    Raises:
        RecordError: not two whole numbers, the lower first.
    """
    low, _, high = text.partition("-")
    if low.isdecimal() and high.isdecimal() and int(low) < int(high):
        return int(low), int(high)
    raise RecordError("--scale", text, "expected LOW-HIGH", hint="for example: --scale 1-4")


def _interval(value: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    return ("-", "") if value is None else (f"{value:.1%}", f"{low:.1%} .. {high:.1%}")


def _print(table: Table) -> None:
    plain_console(width=TABLE_WIDTH).print(table)

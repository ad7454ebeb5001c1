"""Reads files of human judgements, CSV or JSON lines: pairwise good / same / bad, Likert scales and ranks. gsb.py,
likert.py and rank.py summarise them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader, described
from astro_cli.config.parsing import ParseError, parse_json
from eval.contract import MetricInfo

SHOWN = 40  # characters of a wrong cell
LEVEL = 0.95  # of intervals
JSON_LINES = (".jsonl", ".json")
Rows = list[tuple[int, dict[str, str]]]  # line number and cells
METRICS = {
    "gsb": (
        MetricInfo("gsb.preference", "up", "0..1", "share of wins, a tie is half: (G + S/2) / (G + S + B)"),
        MetricInfo("gsb.win_rate", "up", "0..1", "share of wins among the decided: G / (G + B)"),
        MetricInfo("gsb.margin", "up", "-1..1", "wins minus losses: (G - B) / (G + S + B)"),
    ),
    "likert": (
        MetricInfo("likert", "up", "points of the scale", "mean rating per criterion"),
        MetricInfo("likert.share", "up", "0..1", "share of ratings in the top half of the scale, per criterion"),
        MetricInfo("likert.win_rate", "up", "0..1", "share of wins among the decided, of two arms on the same items"),
    ),
    "rank": (
        MetricInfo("rank", "down", "1..arms", "mean rank per criterion, 1 is best"),
        MetricInfo("rank.first", "up", "0..1", "share of the rankings in which an arm is best, a tie is shared"),
        MetricInfo("rank.win_rate", "up", "0..1", "share of wins among the decided, of two arms of the same rankings"),
    ),
}


class AnnotationError(AstroError):
    """A file of judgements that cannot be read."""


def read_rows(path: Path, columns: Sequence[str]) -> Rows:
    """Line number and cells of every row. A file that ends in .jsonl or .json has an object a line, as the page of
    `astro study build` saves them; any other is CSV.

    Raises:
        AnnotationError: missing, not UTF-8 text, a line that is no object, a column that is not there, or no row.
    """
    if path.suffix.lower() in JSON_LINES:
        return _json_rows(path, columns)
    header, numbered = Reader(AnnotationError, hint="expected a CSV file in UTF-8").rows(path)
    for column in columns:
        if column not in header:
            near = difflib.get_close_matches(column, header, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the first line names the columns: {','.join(columns)}"
            raise AnnotationError(
                path, "line 1", f"no column {column!r}, found {', '.join(header) or 'nothing'}", hint=hint
            )
    rows = [(number, cells) for number, cells in numbered if any(cells.values())]
    if not rows:
        raise AnnotationError(path, "", "holds no row", hint=f"a row per judgement below the line {','.join(columns)}")
    return rows


def _json_rows(path: Path, columns: Sequence[str]) -> Rows:
    hint = f"expected an object a line with the keys {', '.join(columns)}"
    rows: Rows = []
    for number, text in enumerate(Reader(AnnotationError, hint=hint).text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
        except ParseError as error:
            raise AnnotationError(path, f"line {number}", str(error), hint=hint) from error
        if not isinstance(row, dict):
            raise AnnotationError(path, f"line {number}", f"found {described(row)}, expected an object", hint=hint)
        for column in columns:
            if column not in row:
                what = f"no key {column!r}, found {', '.join(row) or 'nothing'}"
                raise AnnotationError(path, f"line {number}", what, hint=hint)
        rows.append((number, {key: _cell(value) for key, value in row.items()}))
    if not rows:
        raise AnnotationError(path, "", "holds no row", hint=hint)
    return rows


def _cell(value: object) -> str:
    """A JSON value as a cell of a table has it."""
    return value.strip() if isinstance(value, str) else json.dumps(value)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % interval of a share. Wilson 1927; Brown, Cai & DasGupta 2001, Eq. 4. `successes` may hold halves (ties).

    scipy counts whole successes: of 2 n half ones, with the square of the normal's quantile doubled, the interval is
    the same.
    """
    from scipy.stats import binomtest, chi2  # slow to import

    level = float(chi2.cdf(2 * chi2.ppf(LEVEL, df=1), df=1))
    low, high = binomtest(round(2 * successes), 2 * n).proportion_ci(level, method="wilson")
    return float(low), float(high)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p of as uneven a split, were each side as likely. Ties are left out.

    1 where nothing is decided.
    """
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0

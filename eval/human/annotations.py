"""Reads CSV files of human judgements: pairwise good / same / bad and Likert scales. gsb.py and likert.py summarise
them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader
from eval.contract import MetricInfo

SHOWN = 40  # characters of a wrong cell
LEVEL = 0.95  # of intervals
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
}


class AnnotationError(AstroError):
    """A CSV of judgements that cannot be read."""


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of every row.

    Raises:
        AnnotationError: missing, not UTF-8 text, a column that is not there, or no row.
    """
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

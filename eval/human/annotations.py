"""Reads CSV files of human judgements: pairwise good / same / bad and Likert scales. gsb.py and likert.py summarise
them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path

from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader
from eval.contract import MetricInfo

SHOWN = 40  # characters of a wrong cell
Z95 = 1.959963984540054  # the normal's 97.5 % quantile
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
    """95 % interval of a share. Wilson 1927; Brown, Cai & DasGupta 2001, Eq. 4. `successes` may hold halves (ties)."""
    share, z2 = successes / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p of as uneven a split, were each side as likely. Ties are left out.

    1 where nothing is decided.
    """
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    return min(1.0, 2 * tail)

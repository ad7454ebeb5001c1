"""Good / same / bad judgements of one arm against another: win rate, preference, margin, with intervals and a sign
test. Reads a CSV.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from astro_cli.config.base import Config
from astro_cli.config.verdicts import ALLOWED, VERDICTS
from eval.human.annotations import SHOWN, AnnotationError, read_rows, sign_test, wilson

COLUMN, GROUP = "verdict", "criterion"
ALL = "all"


class Gsb(Config):
    """Judgements of one criterion; shares in 0..1.

    Attributes:
        win_rate: G / (G + B); None where all are ties.
        preference: (G + S/2) / (G + S + B).
        margin: (G - B) / (G + S + B) = 2 preference - 1.
        p: two-sided sign test of G against B.
    """

    criterion: str
    good: int
    same: int
    bad: int
    win_rate: float | None
    win_rate_low: float | None
    win_rate_high: float | None
    preference: float
    preference_low: float
    preference_high: float
    margin: float
    p: float

    @property
    def n(self) -> int:
        return self.good + self.same + self.bad


def summarise(criterion: str, good: int, same: int, bad: int) -> Gsb:
    """TeleBoost (arXiv 2602.07595) Tables 1 and 5; reference E.4.

    **Deviations:** intervals (Wilson) and the sign test are ours. Preference's interval counts a tie as half a win,
    which is conservative: ties vary less than wins and losses.
    """
    n, decided = good + same + bad, good + bad
    low, high = wilson(good, decided) if decided else (None, None)
    half_low, half_high = wilson(good + same / 2, n)
    return Gsb(
        criterion=criterion,
        good=good,
        same=same,
        bad=bad,
        win_rate=good / decided if decided else None,
        win_rate_low=low,
        win_rate_high=high,
        preference=(good + same / 2) / n,
        preference_low=half_low,
        preference_high=half_high,
        margin=(good - bad) / n,
        p=sign_test(good, bad),
    )


def read(path: Path) -> list[Gsb]:
    """Summaries of a CSV with a column `verdict` (G, S or B; good, same or bad) and, if it likes, `criterion`: each
    criterion, then all together.

    Raises:
        AnnotationError: no such column or file, or another verdict.
    """
    counts: dict[str, Counter[str]] = {}
    for line, cells in read_rows(path, (COLUMN,)):
        verdict = VERDICTS.get(cells[COLUMN].lower())
        if verdict is None:
            raise AnnotationError(
                path, f"line {line}", f"{COLUMN}: found {cells[COLUMN][:SHOWN]!r}, allowed: {ALLOWED}"
            )
        counts.setdefault(cells.get(GROUP) or ALL, Counter())[verdict] += 1
    if len(counts) > 1:
        counts[ALL] = sum(counts.values(), Counter())
    return [summarise(name, count["good"], count["same"], count["bad"]) for name, count in counts.items()]

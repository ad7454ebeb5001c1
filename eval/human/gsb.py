"""Good / same / bad judgements of one arm against another: win rate, preference, margin, with intervals and a sign
test. Reads CSV or JSON lines.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from astro_cli.config.base import Config
from astro_cli.config.verdicts import ALLOWED, VERDICTS
from eval.human.annotations import SHOWN, AnnotationError, read_rows, sign_test, wilson

COLUMN, GROUP, ARM, OTHER = "verdict", "criterion", "arm", "other"
ALL = "all"


class Gsb(Config):
    """Judgements of one criterion; shares in 0..1.

    Attributes:
        arm: whose G counts as a win against `other`; both "" where the file names no arms.
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
    arm: str = ""
    other: str = ""

    @property
    def n(self) -> int:
        return self.good + self.same + self.bad


def summarise(criterion: str, good: int, same: int, bad: int, arm: str = "", other: str = "") -> Gsb:
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
        arm=arm,
        other=other,
    )


def read(path: Path) -> list[Gsb]:
    """Summaries of a file with a column `verdict` (G, S or B; good, same or bad) and, if it likes, `criterion`, and
    `arm` and `other`: for each two arms each criterion, then all together.

    Raises:
        AnnotationError: no such column or file, another verdict, or one of the two arms without the other.
    """
    counts: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for line, cells in read_rows(path, (COLUMN,)):
        verdict = VERDICTS.get(cells[COLUMN].lower())
        if verdict is None:
            raise AnnotationError(
                path, f"line {line}", f"{COLUMN}: found {cells[COLUMN][:SHOWN]!r}, allowed: {ALLOWED}"
            )
        of_pair = counts.setdefault(_arms(path, line, cells), {})
        of_pair.setdefault(cells.get(GROUP) or ALL, Counter())[verdict] += 1
    summaries = []
    for (arm, other), of_pair in counts.items():
        if len(of_pair) > 1:
            of_pair[ALL] = sum(of_pair.values(), Counter())
        for name, count in of_pair.items():
            summaries.append(summarise(name, count["good"], count["same"], count["bad"], arm, other))
    return summaries


def _arms(path: Path, line: int, cells: dict[str, str]) -> tuple[str, str]:
    arm, other = cells.get(ARM, ""), cells.get(OTHER, "")
    if bool(arm) != bool(other) or (arm and arm == other):
        what = f"{ARM} and {OTHER}: found {arm[:SHOWN]!r} and {other[:SHOWN]!r}, expected two arms"
        raise AnnotationError(path, f"line {line}", what, hint="name both, or leave both columns out")
    return arm, other

"""Rankings: mean rank and share of first places per arm and criterion, arms compared in the rankings they share, and a
test of whether the arms differ at all. Reads CSV or JSON lines.

Dimensions: T rankings, A arms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astro_cli.config.base import Config
from eval.human import gsb
from eval.human.annotations import SHOWN, AnnotationError, read_rows
from eval.human.likert import Paired, item_interval

ARM, ITEM, RANK, CRITERION, RATER = "arm", "item", "rank", "criterion", "rater"

Rankings = dict[str, dict[tuple[str, str], dict[str, float]]]  # criterion -> item and rater -> arm -> rank


class Ranked(Config):
    """An arm under one criterion.

    Attributes:
        mean: of its ranks, 1 is best.
        low: of the mean's 95 % interval over items, as `high`.
        n: rankings.
        items: the clusters of the mean's interval.
        first: share of the rankings in which it is best; a shared first place counts in part.
    """

    arm: str
    criterion: str
    mean: float
    low: float
    high: float
    n: int
    items: int
    first: float


class Friedman(Config):
    """Whether the ranks of a criterion differ between arms by more than chance."""

    criterion: str
    statistic: float
    p: float


@dataclass(frozen=True)
class Ranks:
    """All of a file."""

    arms: list[Ranked]
    pairs: list[Paired]
    tests: list[Friedman]


def read(path: Path) -> Ranks:
    """Summaries of a file with a row per ranking and arm: the columns `arm`, `item` (what was ranked: a prompt and a
    seed) and `rank` (1 is best; equal ranks are ties), and if it likes `criterion` and `rater`.

    Tied arms share the mean of the places they take. Delta Forcing (arXiv 2605.14382v1), Table 3: mean rank of four
    systems.

    Raises:
        AnnotationError: no such column or file, a rank that is no whole number above 0, an arm twice in a ranking, or
            rankings of different arms under one criterion.

    **Deviations:** the paper prints means only. The interval (Student's over items, as `likert`), the sign tests and
    Friedman's test are ours; the tests take rankings as independent.
    """
    rankings: Rankings = {}
    for line, cells in read_rows(path, (ARM, ITEM, RANK)):
        of_criterion = rankings.setdefault(cells.get(CRITERION, ""), {})
        ranking = of_criterion.setdefault((cells[ITEM], cells.get(RATER, "")), {})
        if cells[ARM] in ranking:
            what = f"{ARM}: found {cells[ARM][:SHOWN]!r} twice for item {cells[ITEM][:SHOWN]!r} by one rater"
            raise AnnotationError(path, f"line {line}", what, hint="a ranking names each arm once")
        ranking[cells[ARM]] = _rank(path, line, cells[RANK])
    ranks = Ranks([], [], [])
    for criterion, of_criterion in rankings.items():
        arms = list(next(iter(of_criterion.values())))
        for (item, _), ranking in of_criterion.items():
            if ranking.keys() != set(arms):
                what = f"item {item[:SHOWN]!r} ranks {', '.join(ranking)}; the first ranks {', '.join(arms)}"
                raise AnnotationError(path, criterion, what, hint="every ranking of a criterion ranks the same arms")
        _summarise(criterion, arms, of_criterion, ranks)
    return ranks


def _rank(path: Path, line: int, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0:
        return int(text)
    what = f"{RANK}: found {text[:SHOWN]!r}, allowed: whole numbers from 1, the best"
    raise AnnotationError(path, f"line {line}", what)


def _summarise(
    criterion: str, arms: list[str], rankings: dict[tuple[str, str], dict[str, float]], ranks: Ranks
) -> None:
    """Adds a criterion's arms, pairs and test."""
    from scipy.stats import friedmanchisquare, rankdata  # slow to import

    given_TA = np.array([list(map(ranking.__getitem__, arms)) for ranking in rankings.values()])
    ranks_TA = rankdata(given_TA, axis=1)
    best_TA = given_TA == given_TA.min(1, keepdims=True)
    first_TA = best_TA / best_TA.sum(1, keepdims=True)
    items = [item for item, _ in rankings]
    for place, arm in enumerate(arms):
        low, high = _interval(items, ranks_TA[:, place])
        ranks.arms.append(
            Ranked(
                arm=arm,
                criterion=criterion,
                mean=float(ranks_TA[:, place].mean()),
                low=max(low, 1.0),
                high=min(high, float(len(arms))),
                n=len(items),
                items=len(set(items)),
                first=float(first_TA[:, place].mean()),
            )
        )
    for one, other in itertools.combinations(range(len(arms)), 2):
        difference_T = ranks_TA[:, one] - ranks_TA[:, other]
        wins, losses = int((difference_T < 0).sum()), int((difference_T > 0).sum())
        judged = gsb.summarise(criterion, wins, len(difference_T) - wins - losses, losses)
        ranks.pairs.append(
            Paired(
                criterion=criterion,
                arm=arms[one],
                other=arms[other],
                wins=wins,
                ties=judged.same,
                losses=losses,
                win_rate=judged.win_rate,
                win_rate_low=judged.win_rate_low,
                win_rate_high=judged.win_rate_high,
                p=judged.p,
            )
        )
    if len(arms) > 2 and len(items) > 1 and (given_TA != given_TA[:, :1]).any():
        test = friedmanchisquare(*ranks_TA.T)
        ranks.tests.append(Friedman(criterion=criterion, statistic=float(test.statistic), p=float(test.pvalue)))


def _interval(items: list[str], ranks_T: np.ndarray) -> tuple[float, float]:
    """95 % of the mean rank: rankings of one item are one cluster."""
    by_item: dict[str, list[float]] = {}
    for item, rank in zip(items, ranks_T, strict=True):
        by_item.setdefault(item, []).append(float(rank))
    most = max(map(len, by_item.values()))
    padded = [[*ranks, *[np.nan] * (most - len(ranks))] for ranks in by_item.values()]
    return item_interval(np.array(padded).T)

"""Evaluates claims over measured records: holds, fails, undecided or not run, with effect and interval. Reads no file and formats nothing.

Dimensions: S seeds, P prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from eval.cells import BySeed, Cells, check_backbone, matrix, paired, refuse_mixed
from eval.claims import Bound, Claim, Compare, Measure, PaperClaims, Published, Relation, Trend, Verdict, VerdictWord
from eval.stats import Interval, has_interval, may_decide, mean_interval
from eval.store import Record
from eval.verify import verify

ARM_SUFFIX = {"shapes": "_shapes", "wan": ""}


class Result(NamedTuple):
    """A part's verdict. No interval where nothing was measured."""

    text: str
    verdict: VerdictWord
    interval: Interval | None
    has_ends: bool = True  # no: of one prompt under one seed


def evaluate(claims: PaperClaims, records: Iterable[Record], backbone: str = "shapes") -> list[Verdict]:
    """The verdict of every claim, in order.

    Raises:
        RecordError: the two sides of a comparison were measured under different protocols, or the records are of several benchmarks.
    """
    cells = Cells(records, check_backbone(backbone))
    return [_verdict(claim, [result for part in claim.parts for result in _results(part, claim, claims, cells)], cells) for claim in claims.claims]


def judge(interval: Interval, relation: Relation, margin: float = 0.0) -> VerdictWord:
    """Whether an interval of a difference d settles `d relation 0`.

    `>`: d exceeds the margin; `>=`: d is at least -margin; `=`: |d| is at most the margin; `<` and `<=` mirrored. Holds where the interval lies
    within the claim, fails where it lies outside.
    """
    if relation in ("<", "<="):
        mirrored = Interval(-interval.mean, -interval.high, -interval.low, interval.n)
        return judge(mirrored, ">" if relation == "<" else ">=", margin)
    low, high = interval.low, interval.high
    if relation == "=":
        return "holds" if -margin <= low and high <= margin else "fails" if low > margin or high < -margin else "undecided"
    if relation == ">":
        return "holds" if low > margin else "fails" if high <= margin else "undecided"
    return "holds" if low >= -margin else "fails" if high < -margin else "undecided"


def conjunction(verdicts: Iterable[VerdictWord]) -> VerdictWord:
    """Holds if all hold, fails if any fails, not run if none was, else undecided."""
    found = set(verdicts)
    if "fails" in found:
        return "fails"
    return next(iter(found)) if len(found) == 1 else "undecided"


def _verdict(claim: Claim, results: list[Result], cells: Cells) -> Verdict:
    word = conjunction(result.verdict for result in results)
    measured = [(result.interval, result) for result in results if result.interval is not None]
    shown, source = next((found for found in measured if found[1].verdict == word), measured[0] if measured else (None, None))
    ends = (shown.low, shown.high) if shown and source and source.has_ends else (None, None)
    is_published = all(isinstance(part, Published) for part in claim.parts)
    return Verdict(
        id=claim.id, source=claim.source, verdict=word, n=shown.n if shown else 0,
        effect=shown.mean if shown else None, low=ends[0], high=ends[1],
        backbone=None if is_published else cells.backbone,
        text=claim.text, tables=claim.tables, parts=[(result.text, result.verdict) for result in results],
    )  # fmt: skip


def _results(part: Compare | Trend | Bound | Published, claim: Claim, claims: PaperClaims, cells: Cells) -> Iterator[Result]:
    if isinstance(part, Published):
        yield _published(part)
        return
    for metric in part.metrics:
        measured = claims.measure(metric, claim, cells.backbone)
        match part:
            case Compare():
                yield from (_compare(part, measured, other, claim, cells) for other in part.b)
            case Trend():
                yield from (_compare(step, measured, step.b[0], claim, cells) for step in _steps(part))
            case Bound():
                yield _bound(part, measured, claim, cells)


def _steps(trend: Trend) -> Iterator[Compare]:
    relation: Relation = ">" if trend.direction == "rises" else "<"
    for before, after in zip(trend.order, trend.order[1:], strict=False):
        yield Compare(metrics=trend.metrics, exact=trend.exact, a=after, relation=relation, b=[before])


def _compare(part: Compare, metric: Measure, other: str, claim: Claim, cells: Cells) -> Result:
    a_stem, b_stem = (claim.stem(side, cells.backbone) for side in (part.a, other))
    text = _text(metric.name, part, a_stem, b_stem)
    a, b = _find(a_stem, metric, cells), _find(b_stem, metric, cells)
    if not a or not b:
        return Result(text, "not run", None)
    pair = paired(b, a)
    if pair is None:
        refuse_mixed(f"claim {claim.id}", metric.name, {a_stem: a, b_stem: b})
        return Result(text, "undecided", None)
    b_SP, a_SP = part.factor * pair[0], pair[1]
    interval, enough = mean_interval(a_SP - b_SP), part.exact or may_decide(a_SP - b_SP)
    margin = max(part.margin, part.margin_share * abs(float(np.nanmean(b_SP))))
    return Result(text, judge(interval, part.relation, margin) if enough else "undecided", interval, part.exact or has_interval(a_SP - b_SP))


def _bound(part: Bound, metric: Measure, claim: Claim, cells: Cells) -> Result:
    stem = claim.stem(part.a, cells.backbone)
    text = f"{metric.name}: {stem} {part.relation} {part.value:g}" + (f" (within {part.margin:g})" if part.margin else "")
    scores_SP = matrix(_find(stem, metric, cells).values())
    if np.isnan(scores_SP).all():
        return Result(text, "not run", None)
    interval, enough = mean_interval(scores_SP), part.exact or may_decide(scores_SP)
    shifted = Interval(interval.mean - part.value, interval.low - part.value, interval.high - part.value, interval.n)
    return Result(text, judge(shifted, part.relation, part.margin) if enough else "undecided", interval, part.exact or has_interval(scores_SP))


def _published(part: Published) -> Result:
    """Effect: the mean deviation; interval: the smallest and the largest. There are no seeds."""
    outcomes = verify(part.verify)
    deviations = [outcome.difference for outcome in outcomes]
    text = f"{len(outcomes)} checks of {', '.join(part.verify)}"
    word: VerdictWord = "holds" if all(outcome.verdict == "ok" for outcome in outcomes) else "fails"
    return Result(text, word, Interval(sum(deviations) / len(deviations), min(deviations), max(deviations), 0))


def _find(stem: str, metric: Measure, cells: Cells) -> BySeed:
    return cells.find(f"{stem}{ARM_SUFFIX[cells.backbone]}", metric.name, metric.benchmark)


def _text(metric: str, part: Compare, a: str, b: str) -> str:
    factor = "" if part.factor == 1 else f"{part.factor:g} x "
    margin = f" (within {part.margin_share:.0%})" if part.margin_share else f" (within {part.margin:g})" if part.margin else ""
    return f"{metric}: {a} {part.relation} {factor}{b}{margin}"

"""Evaluates claims over measured records: holds, fails, undecided or not run, with effect and interval.

Dimensions: S seeds, P prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from eval.papers.claims import (
    Bound,
    Claim,
    Compare,
    EffectKind,
    Measure,
    Most,
    Open,
    PaperClaims,
    Part,
    PartVerdict,
    Published,
    Relation,
    Trend,
    Verdict,
    VerdictWord,
)
from eval.papers.verify import verify
from eval.records.comparable import BySeed, Cells, check_backbone, common_seeds, matrix, paired, refuse_mixed
from eval.records.power import MOST_SEEDS, Needed, needed
from eval.records.stats import Interval, has_interval, may_decide, mean_interval
from eval.records.store import Record

ARM_SUFFIX = {"shapes": "_shapes", "wan": ""}


class Result(NamedTuple):
    """A part's verdict. There is no interval without a measurement, and an interval of one prompt under one seed has no
    ends.
    """

    text: str
    verdict: VerdictWord
    interval: Interval | None = None
    kind: EffectKind = "difference"
    metric: str = ""
    has_ends: bool = True
    open: Open | None = None
    stems: tuple[str, str] = ("", "")
    means: tuple[float, float] | None = None  # of both sides, over the pairs
    relation: Relation | None = None
    reference: float | None = None
    allowance: str = ""
    advice: str = ""

    def part(self) -> PartVerdict:
        interval, has_ends = self.interval, self.has_ends and self.interval is not None
        a_mean, b_mean = self.means or (None, None)
        return PartVerdict(
            text=self.text,
            verdict=self.verdict,
            metric=self.metric,
            a=self.stems[0],
            b=self.stems[1],
            a_mean=a_mean,
            b_mean=b_mean,
            effect=None if interval is None else interval.mean,
            effect_kind=None if interval is None else self.kind,
            low=interval.low if interval is not None and has_ends else None,
            high=interval.high if interval is not None and has_ends else None,
            n=0 if interval is None else interval.n,
            relation=self.relation,
            reference=self.reference,
            allowance=self.allowance,
            advice=self.advice,
        )


class _Sides(NamedTuple):
    """The arms of a part, and the seeds that all of them have."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]


def evaluate(claims: PaperClaims, records: Iterable[Record], backbone: str = "shapes") -> list[Verdict]:
    """The verdict of every claim, in order.

    Raises:
        RecordError: the two sides of a comparison were measured under different protocols, or the records are of
            several benchmarks.
    """
    cells = Cells(records, check_backbone(backbone))
    verdicts = []
    for claim in claims.claims:
        results = [result for part in claim.parts for result in _results(part, claim, claims, cells)]
        verdicts.append(_verdict(claim, results, cells))
    return verdicts


def judge(interval: Interval, relation: Relation, margin: float = 0.0) -> VerdictWord:
    """Whether an interval of a difference d settles `d relation 0`.

    `>`: d exceeds the margin; `>=`: d is at least -margin; `=`: |d| is at most the margin; `<` and `<=` mirrored. Holds
    where the interval lies within the claim, fails where it lies outside.
    """
    if relation in ("<", "<="):
        mirrored = Interval(-interval.mean, -interval.high, -interval.low, interval.n)
        return judge(mirrored, ">" if relation == "<" else ">=", margin)
    low, high = interval.low, interval.high
    if relation == "=":
        return (
            "holds" if -margin <= low and high <= margin else "fails" if low > margin or high < -margin else "undecided"
        )
    if relation == ">":
        return "holds" if low > margin else "fails" if high <= margin else "undecided"
    return "holds" if low >= -margin else "fails" if high < -margin else "undecided"


def conjunction(verdicts: Iterable[VerdictWord]) -> VerdictWord:
    """Holds if all hold, fails if any fails, not run if none was, else undecided."""
    distinct = set(verdicts)
    if "fails" in distinct:
        return "fails"
    return next(iter(distinct)) if len(distinct) == 1 else "undecided"


def _verdict(claim: Claim, results: list[Result], cells: Cells) -> Verdict:
    word = conjunction(result.verdict for result in results)
    parts = [result.part() for result in results]
    measured = [part for part in parts if part.effect is not None]
    nothing = PartVerdict(text="", verdict=word)
    deciding = [part for part in measured if part.verdict == word] or measured
    shown = deciding[0] if deciding else nothing
    counts = [part.n for part in (deciding if word == "fails" else measured)]
    is_published = all(isinstance(part, Published) for part in claim.parts)
    return Verdict(
        id=claim.id,
        source=claim.source,
        verdict=word,
        n=0 if not counts else max(counts) if word == "fails" else min(counts),
        effect=shown.effect,
        effect_kind=shown.effect_kind,
        low=shown.low,
        high=shown.high,
        backbone=None if is_published else cells.backbone,
        metric="" if shown.effect_kind == "ratio" else shown.metric,
        text=claim.text,
        tables=claim.tables,
        parts=parts,
        open=[result.open for result in results if result.open is not None],
    )


def _results(part: Part, claim: Claim, claims: PaperClaims, cells: Cells) -> Iterator[Result]:
    match part:
        case Published():
            yield _published(part)
        case Most():
            yield _most(part, claim, claims, cells)
        case Compare():
            for metric in part.metrics:
                yield from (_compare(part, metric, other, claim, claims, cells) for other in part.b)
        case Trend():
            for metric in part.metrics:
                yield from (_compare(step, metric, step.b[0], claim, claims, cells) for step in _steps(part))
        case Bound():
            yield from (_bound(part, metric, claim, claims, cells) for metric in part.metrics)


def _steps(trend: Trend) -> Iterator[Compare]:
    relation: Relation = ">" if trend.direction == "rises" else "<"
    for before, after in zip(trend.order, trend.order[1:], strict=False):
        yield Compare(metrics=trend.metrics, exact=trend.exact, a=after, relation=relation, b=[before])


def _compare(part: Compare, name: str, other: str, claim: Claim, claims: PaperClaims, cells: Cells) -> Result:
    metric = claims.measure(name, claim, cells.backbone)
    a_stem, b_stem = claim.stem(part.a, cells.backbone), claim.stem(other, cells.backbone)
    named = Result(
        _text(metric.name, part, a_stem, b_stem),
        "undecided",
        metric=metric.name,
        stems=(a_stem, b_stem),
        relation=part.relation,
        allowance=_allowance(part),
    )
    a, b = _find(a_stem, metric, cells), _find(b_stem, metric, cells)
    if not a or not b:
        return named._replace(text=f"{named.text}{_to_come(claims, (a_stem, a), (b_stem, b))}", verdict="not run")
    pair = paired(b, a)
    if pair is None:
        refuse_mixed(f"claim {claim.id}", metric.name, {a_stem: a, b_stem: b})
        return named
    b_SP, a_SP = pair
    is_there_SP = ~np.isnan(a_SP - b_SP)
    a_mean, b_mean = float(a_SP[is_there_SP].mean()), float(b_SP[is_there_SP].mean())
    named = named._replace(means=(a_mean, b_mean))
    measured = _Sides((_arm(a_stem, cells), _arm(b_stem, cells)), tuple(common_seeds(b, a)))
    if part.factor is not None:
        return _ratio(part, part.factor, named, a_SP, b_SP, measured)
    difference_SP = a_SP - b_SP
    margin = max(part.margin, part.margin_share * abs(b_mean))
    result = _judged(named, "difference", difference_SP, 0.0, part.relation, margin, measured, exact=part.exact)
    return _as_ratio(result, b_mean) if part.margin_share and b_mean > 0 else result


def _as_ratio(result: Result, level: float) -> Result:
    """A difference d within a share of the other side's mean, shown as the ratio 1 + d / mean: its bounds are then 1
    plus and minus the share.
    """
    assert result.interval is not None, "judged"
    mean, low, high, n = result.interval
    return result._replace(interval=Interval(1 + mean / level, 1 + low / level, 1 + high / level, n), kind="ratio")


def _ratio(part: Compare, factor: float, named: Result, a_SP: np.ndarray, b_SP: np.ndarray, sides: _Sides) -> Result:
    """The ratio r of the means of a and b against the factor.

    a_sp / mean(b) - r (b_sp / mean(b) - 1) has the mean r and, to first order, the ratio's spread (delta method).
    There is no ratio to a mean of b that is not positive.
    """
    assert named.means is not None, "the means of both sides"
    a_mean, b_mean = named.means
    if b_mean <= 0:
        return named
    ratio = a_mean / b_mean
    ratio_SP = a_SP / b_mean - ratio * (b_SP / b_mean - 1)
    named = named._replace(reference=factor)
    return _judged(named, "ratio", ratio_SP, factor, part.relation, 0.0, sides, exact=part.exact)


def _bound(part: Bound, name: str, claim: Claim, claims: PaperClaims, cells: Cells) -> Result:
    metric, stem = claims.measure(name, claim, cells.backbone), claim.stem(part.a, cells.backbone)
    allowance = _allowance(part)
    text = f"{metric.name}: {stem} {part.relation} {part.value:g}{_in_brackets(allowance)}"
    named = Result(
        text,
        "undecided",
        metric=metric.name,
        stems=(stem, ""),
        relation=part.relation,
        reference=part.value,
        allowance=allowance,
    )
    records = _find(stem, metric, cells)
    scores_SP = matrix(records.values())
    if np.isnan(scores_SP).all():
        return named._replace(text=f"{text}{_to_come(claims, (stem, records))}", verdict="not run")
    sides = _Sides((_arm(stem, cells),), tuple(records))
    return _judged(named, "value", scores_SP, part.value, part.relation, part.margin, sides, exact=part.exact)


def _judged(
    named: Result,
    kind: EffectKind,
    scores_SP: np.ndarray,
    value: float,
    relation: Relation,
    margin: float,
    sides: _Sides,
    *,
    exact: bool,
) -> Result:
    """Whether the mean of the scores of these sides stands in the relation to a value."""
    interval = mean_interval(scores_SP)
    shifted = Interval(interval.mean - value, interval.low - value, interval.high - value, interval.n)
    word = judge(shifted, relation, margin) if exact or may_decide(scores_SP) else "undecided"
    has_ends = exact or has_interval(scores_SP)
    result = named._replace(verdict=word, interval=interval, kind=kind, has_ends=has_ends)
    if word != "undecided":
        return result
    enough = needed(scores_SP, distance_to_verdict(shifted.mean, relation, margin))
    prompts = np.atleast_2d(scores_SP).shape[1]
    by_seeds = enough.seeds if enough is not None and enough.prompts <= prompts else None
    missing = Open(arms=sides.arms, seeds=sides.seeds, needed=2 if len(sides.seeds) == 1 else by_seeds)
    advice = _what_would_decide(enough, len(sides.seeds), prompts)
    return result._replace(advice=advice, open=missing)


def distance_to_verdict(mean: float, relation: Relation, margin: float) -> float:
    """How far a mean difference lies from where the verdict changes: half an interval must be shorter to decide."""
    if relation == "=":
        return abs(margin - abs(mean))
    return abs(mean - (margin if relation in (">", "<=") else -margin))


def _what_would_decide(enough: Needed | None, seeds: int, prompts: int) -> str:
    """Seeds and prompts that would settle a part at the present effect and spread, and what there is, in words."""
    if enough is None and seeds == 1:
        return "one seed says nothing about others, now 1"
    if enough is None:
        return f"no number of seeds up to {MOST_SEEDS} would decide it at this effect"
    more_prompts = enough.prompts > prompts
    size = f"about {enough.seeds} seeds" if enough.seeds > 1 else "one seed"
    size += f" of {enough.prompts:,} prompts" if more_prompts else ""
    now = f"{seeds} of {prompts:,}" if more_prompts else f"{seeds}"
    return f"{size} would decide it at this effect, now {now}"


def _most(part: Most, claim: Claim, claims: PaperClaims, cells: Cells) -> Result:
    """Counts metrics: won where a exceeds every b, lost where it falls short of any, open else.

    Effect: the share in which a has the highest mean; interval: from the share won to the share not lost.
    """
    counted = [metric for metric in part.metrics if metric not in part.absent.get(cells.backbone, [])]
    rivals = [_rivals(part, metric, claim, claims, cells) for metric in counted]
    stems = [claim.stem(side, cells.backbone) for side in (part.a, *part.b)]
    text = f"{stems[0]} best of {', '.join(stems)} in most of {len(counted)} metrics{_in_brackets(_allowance(part))}"
    if all(result.verdict == "not run" for results in rivals for result in results):
        return Result(f"{text}{_to_come(claims, *((stem, {}) for stem in stems))}", "not run")
    words, best = [], []
    for results in rivals:
        words.append(conjunction(result.verdict for result in results))
        best.append(all(result.interval is not None and result.interval.mean > 0 for result in results))
    total, won, lost = len(counted), words.count("holds"), words.count("fails")
    seeds = min(
        (result.interval.n for results in rivals for result in results if result.interval is not None), default=0
    )
    word: VerdictWord = "holds" if 2 * won > total else "fails" if 2 * (total - lost) <= total else "undecided"
    return Result(
        f"{text}: {won} won, {lost} lost",
        word,
        Interval(sum(best) / total, won / total, (total - lost) / total, seeds),
        "share",
    )


def _rivals(part: Most, metric: str, claim: Claim, claims: PaperClaims, cells: Cells) -> list[Result]:
    """a against every b in one metric."""
    above = Compare(metrics=[metric], exact=part.exact, a=part.a, relation=">", b=part.b)
    return [_compare(above, metric, other, claim, claims, cells) for other in part.b]


def _published(part: Published) -> Result:
    """Effect: the mean deviation; interval: the smallest and the largest. There are no seeds."""
    outcomes = verify(part.verify)
    deviations = [outcome.difference for outcome in outcomes]
    text = f"{len(outcomes)} checks of {', '.join(part.verify)}"
    word: VerdictWord = "holds" if all(outcome.verdict == "ok" for outcome in outcomes) else "fails"
    return Result(text, word, Interval(sum(deviations) / len(deviations), min(deviations), max(deviations), 0))


def _find(stem: str, metric: Measure, cells: Cells) -> BySeed:
    return cells.find(_arm(stem, cells), metric.name, metric.benchmark)


def _arm(stem: str, cells: Cells) -> str:
    """The arm that a stem names on the backbone of the records."""
    return f"{stem}{ARM_SUFFIX[cells.backbone]}"


def _text(metric: str, part: Compare, a: str, b: str) -> str:
    factor = "" if part.factor is None else f"{part.factor:g} x "
    return f"{metric}: {a} {part.relation} {factor}{b}{_in_brackets(_allowance(part))}"


def _allowance(part: Compare | Bound | Most) -> str:
    """The margin, and whose it is."""
    share = part.margin_share if isinstance(part, Compare) else 0.0
    margin = 0.0 if isinstance(part, Most) else part.margin
    words = [f"within {share:.0%}"] if share else [f"within {margin:g}"] if margin else []
    words += ["ours"] if part.ours else []
    return ", ".join(words)


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _to_come(claims: PaperClaims, *sides: tuple[str, BySeed]) -> str:
    """Which of the sides without records no recipe trains yet."""
    missing = [stem for stem, records in sides if not records and stem in claims.planned]
    return f" [no recipe yet: {', '.join(missing)}]" if missing else ""

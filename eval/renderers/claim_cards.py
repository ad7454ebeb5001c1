"""Claims as cards that also fit a narrow page: verdict, statement, and every part with its effect and interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eval.papers.claims import PartVerdict, Verdict
from eval.renderers.headline import Headline, by_pair, headline
from eval.renderers.templating import fill
from eval.renderers.words import seeds, verdict_text

CENTER, REACH = 50.0, 44.0  # per cent of the line: where no effect stands, and the farthest end of an interval


class EffectPlot(NamedTuple):
    """Mean and interval in per cent of a line whose middle is no effect, or the number that the claim names."""

    mean: float
    low: float
    high: float


class PartLine(NamedTuple):
    headline: Headline
    plot: EffectPlot | None
    advice: str  # what would decide it


class ClaimCard(NamedTuple):
    verdict: Verdict
    word: str  # the verdict, and where it rests on one seed, that it does
    pairs: list[tuple[str, str, list[PartLine]]]  # base, tuned, and what compares them
    seeds: str


def claim_cards(verdicts: Sequence[Verdict]) -> str:
    """A fragment, a card per claim. Each card's id is `claim-<id>`."""
    return fill("claim_cards.html", cards=[claim_card(verdict) for verdict in verdicts])


def claim_card(verdict: Verdict) -> ClaimCard:
    pairs = []
    for _, parts in by_pair(verdict):
        lines = [PartLine(headline(part), effect_plot(part, verdict.parts), part.advice) for part in parts]
        pairs.append((parts[0].b, parts[0].a, lines))
    counts = sorted({part.n for part in verdict.parts if part.n})
    shown = f"{counts[0]} to {seeds(counts[-1])}" if len(counts) > 1 else seeds(counts[0]) if counts else ""
    return ClaimCard(verdict, verdict_text(verdict.verdict, verdict.n), pairs, shown)


def effect_plot(part: PartVerdict, parts: Sequence[PartVerdict]) -> EffectPlot | None:
    """Where an effect stands; parts of one metric and kind share a scale. None without an effect, or of a count."""
    if part.effect is None or part.effect_kind == "share" or part.relation is None:
        return None
    alike = [each for each in parts if (each.metric, each.effect_kind) == (part.metric, part.effect_kind)]
    reach = max(abs(value) for each in alike for value in _offsets(each))
    if not reach:
        return EffectPlot(CENTER, CENTER, CENTER)
    places = [round(CENTER + REACH * value / reach, 2) for value in _offsets(part)]
    return EffectPlot(*places) if len(places) == 3 else EffectPlot(places[0], places[0], places[0])


def _offsets(part: PartVerdict) -> list[float]:
    """Effect and ends, from no effect; of a value or a ratio, from the number it is judged by."""
    origin = part.reference if part.reference is not None else 1.0 if part.effect_kind == "ratio" else 0.0
    return [value - origin for value in (part.effect, part.low, part.high) if value is not None]

"""A claim in lines a reader takes in at once: of every part the metric, both means, the effect with its interval,
the verdict and the seeds. The report page and the end of `astro reproduce` show them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

from eval.papers.claims import PartVerdict, Relation, Verdict, VerdictWord
from eval.renderers.words import DECIMALS_EXACT, LARGE, NOT_RUN, interval_decimals, seeds, shown_in

INDENT = " " * 11  # what follows a verdict's column
DECIMALS_OF_UNITS = 1  # of numbers with a unit, such as MiB
INITIALS = 3  # names up to so many letters are initials: VQ
# What a comparison of two sides claims, where it is not that a is above b.
CLAIMED: dict[Relation, str] = {"<": "falls", ">=": "no lower", "<=": "no higher", "=": "equal"}


class Headline(NamedTuple):
    """A part in pieces; all are empty but `claim` and `verdict` where nothing was measured."""

    claim: str  # the metric, or the part's own text where it is of several metrics
    means: str  # of b, then of a: base before tuned
    effect: str
    verdict: VerdictWord
    seeds: str
    note: str  # what is claimed, where it is not that a is above b


def headline(part: PartVerdict) -> Headline:
    """The pieces of a part."""
    claim = metric_name(part.metric) if part.metric else part.text
    if part.effect is None:
        return Headline(claim, "", "", part.verdict, "", _note(part))
    scale, unit = shown_in(part.metric, part.effect if part.a_mean is None else part.a_mean)
    own_scale, own_unit = (1.0, "") if part.effect_kind == "ratio" else (scale, unit)
    digits = _digits(part, own_scale, own_unit)
    means = ""
    if part.a_mean is not None and part.b_mean is not None:
        shown = DECIMALS_OF_UNITS if unit else digits
        means = f"{number_text(part.b_mean / scale, shown)} -> {number_text(part.a_mean / scale, shown)}{unit}"
    count = seeds(part.n) if part.n else ""
    return Headline(claim, means, _effect(part, digits, own_scale, own_unit), part.verdict, count, _note(part))


def headline_text(part: PartVerdict) -> str:
    """A part as one line: `VQ .755 -> .805, +.050 [.019, .089], holds, 3 seeds`."""
    pieces = headline(part)
    measured = (
        (f"{pieces.claim} {pieces.means}", pieces.effect) if pieces.means else (f"{pieces.claim} {pieces.effect}",)
    )
    words = (*(words.rstrip() for words in measured), pieces.verdict, pieces.seeds, pieces.note)
    return ", ".join(word for word in words if word)


def headline_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Every claim that was judged with its parts, then one line of counts."""
    lines = []
    for verdict in verdicts:
        if verdict.verdict != NOT_RUN:
            lines.append(f"{verdict.verdict:<9}  {verdict.text} [{verdict.source}]")
            lines += [f"{INDENT}{line}" for line in _part_lines(verdict)]
    return [*lines, f"{counts_text(verdicts)} of {len(verdicts)} claims"] if verdicts else []


def counts_text(verdicts: Iterable[Verdict]) -> str:
    """`4 hold, 1 fails, 11 undecided, 0 not run`."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    plural = {"holds": "hold", "fails": "fail"}
    words = []
    for word in get_args(VerdictWord):
        count = counts[word]
        words.append(f"{count} {word if count == 1 else plural.get(word, word)}")
    return ", ".join(words)


def by_pair(verdict: Verdict) -> list[tuple[str, list[PartVerdict]]]:
    """The parts that compare the same two sides, each with its name, `base -> tuned`; in the order of their firsts."""
    pairs: dict[str, list[PartVerdict]] = {}
    for part in verdict.parts:
        pairs.setdefault(pair_name(part), []).append(part)
    return list(pairs.items())


def pair_name(part: PartVerdict) -> str:
    return " -> ".join(stem for stem in (part.b, part.a) if stem)


def metric_name(metric: str) -> str:
    """Initials in capitals, other names in words."""
    return metric.upper() if len(metric) <= INITIALS else metric.replace("_", " ")


def _part_lines(verdict: Verdict) -> list[str]:
    lines = []
    for pair, parts in by_pair(verdict):
        lines += [pair] if pair else []
        lines += [f"  {headline_text(part)}" for part in parts]
    return lines


def _digits(part: PartVerdict, scale: float, unit: str) -> int:
    """Decimals by the interval's width; of an interval without one, by the unit."""
    if part.low is not None and part.high is not None and part.high > part.low:
        return interval_decimals(part.low / scale, part.high / scale, signed=part.effect_kind == "difference")
    return DECIMALS_OF_UNITS if unit else DECIMALS_EXACT


def _effect(part: PartVerdict, digits: int, scale: float, unit: str) -> str:
    """The effect, signed where it is a difference, and the ends of its interval where that has a width."""
    values = (part.effect, part.low, part.high) if part.low != part.high else (part.effect,)
    numbers = [number_text(value / scale, digits) for value in values if value is not None]
    sign = "+" if part.effect_kind == "difference" and numbers[0].strip(".0,") and numbers[0][0] != "-" else ""
    kind = "" if part.effect_kind in ("difference", "value") else f"{part.effect_kind} "
    interval = f" [{numbers[1]}, {numbers[2]}]" if len(numbers) > 2 else ""
    return f"{kind}{sign}{numbers[0]}{interval}{unit}"


def _note(part: PartVerdict) -> str:
    if part.relation is None:
        return ""
    if part.reference is None:
        claimed = CLAIMED.get(part.relation, "rises" if part.allowance else "")
    else:
        claimed = f"{part.relation} {part.reference:g}"
    return ", ".join(word for word in (f"claimed: {claimed}" if claimed else "", part.allowance) if word)


def number_text(value: float, digits: int) -> str:
    """Without the zero before the point; never a negative zero."""
    if abs(value) >= LARGE:
        return f"{value:,.0f}"
    text = f"{round(value, digits) + 0.0:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text

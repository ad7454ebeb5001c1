"""What is proven, in one Markdown table: a row per verdict and per place where it was measured. The README shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import get_args

from eval.papers.claims import PaperClaims, PartVerdict, Verdict, VerdictWord
from eval.papers.verdicts import evaluate
from eval.records.store import BACKBONES, Record
from eval.renderers.claims import PUBLISHED, effect_text
from eval.renderers.headline import metric_name, pair_name
from eval.renderers.markdown import pipe_table
from eval.renderers.words import seeds

HEADS = ("measured on", "verdict", "claims", "which")
ALIGNED = "llrl"
PLACES = {"shapes": "`shapes`", "wan": "Wan 2.1"}
SHOWN_WHOLE = ("holds", "fails")  # with their effects; of those that are not run, the number alone
MOST_EFFECTS = 3  # of a claim with more parts it says how many hold


def summary_of_records(papers: Iterable[PaperClaims], records: Sequence[Record]) -> str:
    """The table of these papers' claims, judged by these records on every backbone."""
    verdicts: dict[str, list[Verdict]] = {}
    for paper in papers:
        verdicts[paper.title] = [verdict for place in BACKBONES for verdict in evaluate(paper, records, place)]
    return claims_summary(verdicts)


def claims_summary(papers: Mapping[str, Sequence[Verdict]]) -> str:
    """The table.

    Args:
        papers: a paper's title -> its verdicts, of one backbone after the other. A claim about published numbers, which
            belongs to no backbone, may be there once per backbone; it is counted once.
    """
    rows = []
    for place in (*BACKBONES, None):
        chosen = {title: _of(place, verdicts) for title, verdicts in papers.items()}
        for word in get_args(VerdictWord):
            if count := _count(word, chain.from_iterable(chosen.values())):
                where = PUBLISHED if place is None else PLACES[place]
                rows.append([where, word, str(count), _which(word, chosen)])
    return "\n".join(pipe_table(HEADS, rows, ALIGNED))


def _of(place: str | None, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one backbone, or about published numbers; every claim once."""
    return list({verdict.id: verdict for verdict in verdicts if verdict.backbone == place}.values())


def _which(word: VerdictWord, papers: Mapping[str, Sequence[Verdict]]) -> str:
    if word == "not run":
        counts = [(title, _count(word, verdicts), len(verdicts)) for title, verdicts in papers.items()]
        return ", ".join(f"{title} {count} of {total}" for title, count, total in counts if count)
    chosen = [verdict for verdict in chain.from_iterable(papers.values()) if verdict.verdict == word]
    if word in SHOWN_WHOLE:
        return " ".join(map(_whole, chosen))
    return " ".join(f"{verdict.text}." for verdict in chosen)


def _count(word: VerdictWord, verdicts: Iterable[Verdict]) -> int:
    return sum(verdict.verdict == word for verdict in verdicts)


def _whole(verdict: Verdict) -> str:
    count = f", {seeds(verdict.n)}" if verdict.n else ""
    return f"{verdict.text}: {_effects(verdict)}{count}."


def _effects(verdict: Verdict) -> str:
    """The effect of every part; of a claim of many, how many hold."""
    parts = verdict.parts
    if len(parts) < 2:
        return effect_text(verdict)
    if len(parts) > MOST_EFFECTS:
        return _part_counts(parts)
    return ", ".join(f"{_part_name(part, parts)} {effect_text(part)}" for part in parts)


def _part_name(part: PartVerdict, parts: Sequence[PartVerdict]) -> str:
    """What tells a part from the others: its metric, the arms it compares, or both."""
    metrics = {other.metric for other in parts}
    names = [metric_name(part.metric)] if len(metrics) > 1 else []
    names += [f"`{pair_name(part)}`"] if len(metrics) < len(parts) else []
    return " of ".join(names)


def _part_counts(parts: Sequence[PartVerdict]) -> str:
    """`2 of 5 parts hold, 1 fails, 2 undecided`."""
    counts = Counter(part.verdict for part in parts)
    failed = {"fails": f"{counts['fails']} {'fails' if counts['fails'] == 1 else 'fail'}"}
    others = [failed.get(word, f"{counts[word]} {word}") for word in get_args(VerdictWord)[1:] if counts[word]]
    return ", ".join([f"{counts['holds']} of {len(parts)} parts hold", *others])

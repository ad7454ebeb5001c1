"""Verdicts of claims as text, Markdown, HTML and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from eval.papers.claims import PartVerdict, Verdict
from eval.renderers.data import dumps
from eval.renderers.html import plain_table, scrolling
from eval.renderers.markdown import pipe_table
from eval.renderers.words import NO_COUNTERPART, interval_text, seeds, verdict_text

HEADS = ("Claim", "Source", "What it says", "Verdict", "Effect [95 %]", "Seeds", "Backbone")
ALIGNED = "llllrrl"
PUBLISHED = "published numbers"
PART = "↳"  # before the text of a part


def claims_text(verdicts: Sequence[Verdict]) -> str:
    """One claim in a paragraph, its parts below it where there are several."""
    return "\n".join(line for verdict in verdicts for line in _lines(verdict))


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(
        ["**Claims**", "", *pipe_table(HEADS, [row for verdict in verdicts for row in _rows(verdict)], ALIGNED)]
    )


def claims_html(verdicts: Sequence[Verdict]) -> str:
    return scrolling(
        plain_table("Claims", HEADS, [row for verdict in verdicts for row in _rows(verdict)], ALIGNED), "Claims"
    )


def claims_json(verdicts: Sequence[Verdict]) -> str:
    return dumps([verdict.model_dump() for verdict in verdicts])


def _lines(verdict: Verdict) -> list[str]:
    effect = f"  {summary_text(verdict)}" if verdict.effect is not None else ""
    count = (
        f" ({seeds(verdict.n)}, {verdict.backbone})"
        if verdict.n
        else f" ({PUBLISHED})"
        if verdict.backbone is None
        else ""
    )
    word = verdict_text(verdict.verdict, verdict.n)
    lines = [f"{word:<9}  {verdict.id:<18} {verdict.text} [{verdict.source}]{effect}{count}"]
    if len(verdict.parts) > 1:
        return lines + [
            f"{'':<9}    - {verdict_text(part.verdict, part.n)}: {part_text(part)}" for part in verdict.parts
        ]
    return lines + [f"{'':<9}    - {part.advice}" for part in verdict.parts if part.advice]


def part_text(part: PartVerdict) -> str:
    """What the part says, its effect, and what would decide it."""
    effect = "" if part.effect is None else f": {effect_text(part)}"
    return f"{part.text}{effect}{f'; {part.advice}' if part.advice else ''}"


def _rows(verdict: Verdict) -> list[list[str]]:
    """The claim's row; below it one for each of its parts, where there are several."""
    count = str(verdict.n) if verdict.n else NO_COUNTERPART
    own = [
        f"`{verdict.id}`",
        verdict.source,
        verdict.text,
        verdict_text(verdict.verdict, verdict.n),
        summary_text(verdict),
        count,
        verdict.backbone or PUBLISHED,
    ]
    return [own, *(map(_part_row, verdict.parts) if len(verdict.parts) > 1 else [])]


def _part_row(part: PartVerdict) -> list[str]:
    count = str(part.n) if part.n else ""
    text = f"{PART} {part.text}{f'; {part.advice}' if part.advice else ''}"
    return ["", "", text, verdict_text(part.verdict, part.n), effect_text(part), count, ""]


def summary_text(verdict: Verdict) -> str:
    """The effect of a claim of one part; of several, how many of them hold."""
    if len(verdict.parts) < 2:
        return effect_text(verdict)
    number = sum(part.verdict == "holds" for part in verdict.parts)
    return f"{number} of {len(verdict.parts)} parts hold"


def effect_text(verdict: Verdict | PartVerdict) -> str:
    """The effect with the ends of its interval; differences are signed."""
    if verdict.effect is None or verdict.effect_kind is None:
        return NO_COUNTERPART
    metric = "" if verdict.effect_kind == "ratio" else verdict.metric
    text = interval_text(verdict.effect, verdict.low, verdict.high, metric, signed=verdict.effect_kind == "difference")
    return text if verdict.effect_kind in ("difference", "value") else f"{verdict.effect_kind} {text}"


RENDERERS = {"text": claims_text, "markdown": claims_markdown, "json": claims_json}

"""Verdicts of claims as text, Markdown, HTML and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from eval.papers.claims import Verdict
from eval.renderers.data import dumps
from eval.renderers.html import plain_table, scrolling
from eval.renderers.markdown import pipe_table
from eval.renderers.words import NO_COUNTERPART, interval_text, seeds

HEADS = ("Claim", "Source", "What it says", "Verdict", "Effect [95 %]", "Seeds", "Backbone")
ALIGNED = "llllrrl"
PUBLISHED = "published numbers"


def claims_text(verdicts: Sequence[Verdict]) -> str:
    """One claim in a paragraph, its parts below it where there are several."""
    return "\n".join(line for verdict in verdicts for line in _lines(verdict))


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(["**Claims**", "", *pipe_table(HEADS, [_cells(verdict) for verdict in verdicts], ALIGNED)])


def claims_html(verdicts: Sequence[Verdict]) -> str:
    return scrolling(plain_table("Claims", HEADS, [_cells(verdict) for verdict in verdicts], ALIGNED), "Claims")


def claims_json(verdicts: Sequence[Verdict]) -> str:
    return dumps([verdict.model_dump() for verdict in verdicts])


def _lines(verdict: Verdict) -> list[str]:
    measured = "" if verdict.effect is None else f"  {effect_text(verdict)}"
    count = (
        f" ({seeds(verdict.n)}, {verdict.backbone})"
        if verdict.n
        else f" ({PUBLISHED})"
        if verdict.backbone is None
        else ""
    )
    lines = [f"{verdict.verdict:<9}  {verdict.id:<18} {verdict.text} [{verdict.source}]{measured}{count}"]
    shows_parts = len(verdict.parts) > 1 or verdict.verdict == "undecided"  # what would decide is said by the parts
    return lines + ([f"{'':<9}    - {part.verdict}: {part.text}" for part in verdict.parts] if shows_parts else [])


def _cells(verdict: Verdict) -> list[str]:
    count = str(verdict.n) if verdict.n else NO_COUNTERPART
    return [
        f"`{verdict.id}`",
        verdict.source,
        verdict.text,
        verdict.verdict,
        effect_text(verdict),
        count,
        verdict.backbone or PUBLISHED,
    ]


def effect_text(verdict: Verdict) -> str:
    """The effect with the ends of its interval; differences are signed."""
    if verdict.effect is None or verdict.effect_kind is None:
        return NO_COUNTERPART
    text = interval_text(
        verdict.effect, verdict.low, verdict.high, verdict.metric, signed=verdict.effect_kind == "difference"
    )
    return text if verdict.effect_kind in ("difference", "value") else f"{verdict.effect_kind} {text}"


RENDERERS = {"text": claims_text, "markdown": claims_markdown, "json": claims_json}

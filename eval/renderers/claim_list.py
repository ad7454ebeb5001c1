"""Verdicts of claims as an HTML list that also fits a narrow page: verdict, statement, effect, parts."""

from __future__ import annotations

import html
from collections.abc import Sequence

from eval.papers.claims import PartVerdict, Verdict
from eval.renderers.claims import PUBLISHED, effect_text, part_text, summary_text
from eval.renderers.html import with_code
from eval.renderers.words import seeds, verdict_text


def claim_list(verdicts: Sequence[Verdict]) -> str:
    """One entry per claim. Each entry's id is `claim-<id>`."""
    return "\n".join(['<ul class="claims">', *map(_entry, verdicts), "</ul>"])


def _entry(verdict: Verdict) -> str:
    shown = verdict_text(verdict.verdict, verdict.n)
    word = f'<p class="verdict {verdict.verdict.replace(" ", "-")}">{shown}</p>'
    text = f"<p>{with_code(verdict.text)} <small>({with_code(f'{verdict.source}, `{verdict.id}`')})</small></p>"
    facts = f'<p class="facts">{with_code(_facts(verdict))}</p>'
    return f'<li id="claim-{html.escape(verdict.id)}">{word}{text}{facts}{_parts(verdict)}</li>'


def _facts(verdict: Verdict) -> str:
    """Effect, interval, seeds and backbone. A claim about published numbers has deviations and no seeds."""
    if verdict.backbone is None:
        return f"{PUBLISHED}: mean deviation {effect_text(verdict)}"
    if verdict.effect is None:
        return f"not measured on {verdict.backbone}"
    if len(verdict.parts) > 1:
        return f"{summary_text(verdict)}, {seeds(verdict.n)}, {verdict.backbone}"
    return f"effect {effect_text(verdict)}, {seeds(verdict.n)}, {verdict.backbone}"


def _parts(verdict: Verdict) -> str:
    if len(verdict.parts) < 2:
        return ""
    return f"<ul>{''.join(map(_part, verdict.parts))}</ul>"


def _part(part: PartVerdict) -> str:
    return f"<li>{verdict_text(part.verdict, part.n)}: {with_code(part_text(part))}</li>"

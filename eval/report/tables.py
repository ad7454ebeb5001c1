"""Sections of the page about tables and claims: a summary per paper. Measured tables come first, others are folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from eval.papers.claims import Verdict, list_papers, load_claims
from eval.papers.published import paper_of
from eval.renderers.claim_list import claim_list
from eval.renderers.render import Item, render
from eval.renderers.words import INTERVALS
from eval.report.page import Folded, Fragment, Part, Section, Text, TextTable

WORDS = ("holds", "fails", "undecided", "not run")
HOW_TO_READ = (
    "A claim `holds` where the 95 % interval of the paired difference lies within it, `fails` where it lies "
    "outside, and is `undecided` where the "
    "interval reaches both sides or there are too few pairs. A claim of several parts holds where all do and "
    "fails where any does; the effect shown "
    f"is that of the first part with the claim's verdict. {INTERVALS}"
)


def is_measured(item: Item) -> bool:
    """Whether any cell of the table has a record."""
    return any(cell is not None for row in item.view.rows for cell in row.measured.values())


def summary_section(items: Sequence[Item]) -> Section:
    """Per paper: tables with a measured cell, and claims by verdict."""
    rows = []
    for paper, of_paper in _by_paper(items):
        counts = Counter(verdict.verdict for item in of_paper for verdict in item.claims)
        rows.append(
            [_title(paper), f"{sum(map(is_measured, of_paper))} of {len(of_paper)}", *(counts[word] for word in WORDS)]
        )
    return Section("Summary", [TextTable(["Paper", "Tables measured", *(f"Claims: {word}" for word in WORDS)], rows)])


def tables_section(items: Sequence[Item]) -> Section:
    """Tables with a measured cell, then the others of each paper behind one line."""
    parts: list[Part] = [_table(item) for item in items if is_measured(item)]
    if not parts:
        parts.append(Text("No table has a measured cell on this backbone."))
    for paper, of_paper in _by_paper([item for item in items if not is_measured(item)]):
        names = f"{len(of_paper)} table{'s' if len(of_paper) > 1 else ''} as published, nothing measured"
        parts.append(Folded(f"{_title(paper)}: {names}", [_table(item) for item in of_paper]))
    return Section("Tables, published and measured", parts)


def claims_section(items: Sequence[Item]) -> Section:
    """Claims that were judged, paper by paper, then those nobody has run, behind one line per paper."""
    parts: list[Part] = [Text(HOW_TO_READ)]
    papers = []
    for paper, of_paper in _by_paper(items):
        papers.append((paper, [verdict for item in of_paper for verdict in item.claims]))
    for paper, verdicts in papers:
        if judged := [verdict for verdict in verdicts if verdict.verdict != "not run"]:
            parts.append(_claims(paper, judged))
    for paper, verdicts in papers:
        if waiting := [verdict for verdict in verdicts if verdict.verdict == "not run"]:
            parts.append(
                Folded(
                    f"{_title(paper)}: {len(waiting)} of {len(verdicts)} claims not run",
                    [Fragment(claim_list(waiting))],
                )
            )
    return Section("Claims", parts)


def _table(item: Item) -> Fragment:
    return Fragment(render(item.view, item.differences, "html"), (item.view.id, f"{item.view.id}: {item.view.title}"))


def _claims(paper: str, verdicts: Sequence[Verdict]) -> Fragment:
    name, anchor = _title(paper), f"claims-{paper}"
    return Fragment(f'<h3 id="{anchor}">{name}</h3>\n{claim_list(verdicts)}', (anchor, name))


def _by_paper(items: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    return [(paper, list(of_paper)) for paper, of_paper in groupby(items, key=lambda item: paper_of(item.view.id))]


def _title(paper: str) -> str:
    return load_claims(paper).title if paper in list_papers() else paper

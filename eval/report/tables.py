"""Sections of the page about claims and tables: verdicts first, then of every table the rows that were measured.

Claims that nobody ran and tables without a measured cell are folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import get_args

from eval.papers.claims import Verdict, VerdictWord, list_papers, load_claims
from eval.papers.published import paper_of
from eval.renderers.claim_cards import claim_cards
from eval.renderers.measured import measured_html
from eval.renderers.render import Item, render
from eval.renderers.words import INTERVALS, one_training_text
from eval.report.page import Folded, Fragment, Heading, Part, Section, Text

DECIDED = ("holds", "fails")
OPEN_UNDECIDED = 4  # more undecided claims of a paper are folded, where it has decided ones
HOW_TO_READ = (
    "A line has the metric, the mean of the base and of the tuned model, and below them their paired difference with "
    "its 95 % interval. The thin vertical line is no difference; of a value or a ratio it is the number that the claim "
    "names. Parts of one metric share a scale.\n\nA claim `holds` where the interval lies within it, `fails` where it "
    "lies outside, and is `undecided` where the interval reaches both sides or there are too few pairs. A claim of "
    "several parts holds where all do and fails where any does."
)
LABELS: dict[VerdictWord, str] = {"holds": "hold", "fails": "fail", "undecided": "undecided", "not run": "not run"}


def is_measured(item: Item) -> bool:
    """Whether any cell of the table has a record."""
    return any(cell is not None for row in item.view.rows for cell in row.measured.values())


def claim_counts(papers: Mapping[str, Sequence[Verdict]]) -> list[tuple[str, int, str]]:
    """Of every verdict how many claims have it: its word, the number, and the word after a number."""
    words = [verdict.verdict for verdicts in papers.values() for verdict in verdicts]
    return [(word, words.count(word), LABELS[word]) for word in get_args(VerdictWord)]


def verdicts_section(papers: Mapping[str, Sequence[Verdict]], once: Sequence[str] = ()) -> Section:
    """The claims, paper by paper: those that were decided are open.

    Args:
        papers: a paper's name -> its verdicts.
        once: arms that were trained once.
    """
    parts: list[Part] = []
    for paper, verdicts in papers.items():
        if judged := [each for each in verdicts if each.verdict != "not run"]:
            parts += _judged(paper, judged, named=len(papers) > 1)
    if not parts:
        parts.append(Text("No claim was judged: nothing was measured that a claim is about."))
    parts += _waiting(papers)
    notes = [HOW_TO_READ, INTERVALS, *([one_training_text(once)] if once else [])]
    return Section("Verdicts", [*parts, Folded("How to read this", [Text("\n\n".join(notes))])])


def tables_section(items: Sequence[Item]) -> Section:
    """Of every table with a measured cell its measured rows, the whole table folded; then the other tables."""
    parts: list[Part] = []
    for item in filter(is_measured, items):
        parts += [
            Heading(item.view.title, f"table-{item.view.id}"),
            Fragment(measured_html(item.view, item.differences)),
            Folded("Full table, published and measured", [_whole(item)]),
        ]
    if not parts:
        parts.append(Text("No table has a measured cell on this backbone."))
    waiting = [item for item in items if not is_measured(item)]
    for paper, of_paper in groupby(waiting, key=lambda item: paper_of(item.view.id)):
        tables = list(map(_whole, of_paper))
        names = f"{len(tables)} table{'s' if len(tables) > 1 else ''} as published, nothing measured"
        parts.append(Folded(f"{paper_title(paper)}: {names}", tables))
    return Section("Tables", parts)


def paper_title(paper: str) -> str:
    """As the paper's claims name it."""
    return load_claims(paper).title if paper in list_papers() else paper


def _judged(paper: str, verdicts: Sequence[Verdict], *, named: bool) -> list[Part]:
    decided = [verdict for verdict in verdicts if verdict.verdict in DECIDED]
    undecided = [verdict for verdict in verdicts if verdict.verdict not in DECIDED]
    parts: list[Part] = [Heading(paper_title(paper), f"claims-{paper}")] if named else []
    if decided:
        parts.append(Fragment(claim_cards(decided)))
    if undecided and decided and len(undecided) > OPEN_UNDECIDED:
        summary = f"{len(undecided)} undecided: too few seeds or prompts for an effect of this size"
        parts.append(Folded(summary, [Fragment(claim_cards(undecided))]))
    elif undecided:
        parts.append(Fragment(claim_cards(undecided)))
    return parts


def _waiting(papers: Mapping[str, Sequence[Verdict]]) -> list[Part]:
    """The claims that nobody ran, of all papers behind one line."""
    parts, words = list[Part](), list[str]()
    for paper, verdicts in papers.items():
        if waiting := [verdict for verdict in verdicts if verdict.verdict == "not run"]:
            words.append(f"{paper_title(paper)} {len(waiting)} of {len(verdicts)}")
            parts += [Text(words[-1]), Fragment(claim_cards(waiting))]
    return [Folded(f"Claims not run: {', '.join(words)}", parts)] if parts else []


def _whole(item: Item) -> Fragment:
    return Fragment(render(item.view, item.differences, "html"))

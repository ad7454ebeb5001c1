"""The pages of the documentation, and what is in them. A helper of tests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTATION.md", "PAPERS.md")
MARKDOWN = MarkdownIt("commonmark").enable("table")


def pages() -> list[Path]:
    return [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced block: its page, the line it begins on, its language ('' for a terminal) and its lines."""

    page: str
    line: int
    language: str
    text: str


def tokens(page: Path) -> Iterator[Token]:
    """All tokens of a page, those inside of paragraphs and cells too."""
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def blocks(page: Path) -> list[Block]:
    name = str(page.relative_to(ROOT))
    return [
        Block(name, token.map[0] + 1 if token.map else 0, token.info.strip(), token.content)
        for token in tokens(page)
        if token.type == "fence"
    ]


def code_spans(page: Path) -> list[str]:
    """What stands between backquotes, a line break as a space."""
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Targets of links and pictures."""
    found = (token.attrGet("href") or token.attrGet("src") for token in tokens(page))
    return [str(target) for target in found if target]


def anchors(page: Path) -> set[str]:
    """The names that hubs give a page's headings."""
    parsed = MARKDOWN.parse(page.read_text(encoding="utf-8"))
    headings = (after.content for token, after in pairwise(parsed) if token.type == "heading_open")
    return {_anchor(heading) for heading in headings}


def _anchor(heading: str) -> str:
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")

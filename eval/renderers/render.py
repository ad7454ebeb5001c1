"""Prints joined tables, alone or several, in a named format. Owns the choice of the format; `eval/renderers/` owns the
formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from astro_cli.config.errors import RecordError, did_you_mean
from eval.papers.claims import Verdict
from eval.papers.table import Difference, TableView
from eval.renderers.claims import claims_html, claims_markdown
from eval.renderers.data import csv, dumps, json, json_form
from eval.renderers.html import html
from eval.renderers.latex import latex
from eval.renderers.markdown import markdown

RENDERERS: dict[str, Callable[[TableView, Sequence[Difference]], str]] = {
    "markdown": markdown,
    "html": html,
    "latex": latex,
    "csv": csv,
    "json": json,
}
CLAIM_RENDERERS: dict[str, Callable[[Sequence[Verdict]], str]] = {"markdown": claims_markdown, "html": claims_html}


class Item(NamedTuple):
    """A table, its differences, and the claims printed below it."""

    view: TableView
    differences: Sequence[Difference]
    claims: Sequence[Verdict] = ()


def render(view: TableView, differences: Sequence[Difference], fmt: str, claims: Sequence[Verdict] = ()) -> str:
    """One table as text. `json` is the stable form; claims are printed in markdown and html, differences in these and
    latex.
    """
    check_format(fmt)
    text = RENDERERS[fmt](view, differences)
    if claims and fmt in CLAIM_RENDERERS:
        return f"{text}\n\n{CLAIM_RENDERERS[fmt](claims)}"
    return text


def render_many(items: Iterable[Item], fmt: str) -> str:
    """Several tables as one text; a list in `json`."""
    check_format(fmt)
    if fmt == "json":
        return dumps([json_form(item.view) for item in items])
    return "\n\n".join(render(*item[:2], fmt, item.claims) for item in items)


def check_format(fmt: str) -> None:
    """RecordError unless `render` knows the format."""
    if fmt not in RENDERERS:
        raise RecordError(
            "--format", fmt, f"unknown format, allowed: {', '.join(RENDERERS)}", hint=did_you_mean(fmt, RENDERERS)
        )

"""HTML of a joined table: a fragment without scripts or outside files, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence

from eval.papers.table import Difference, TableView
from eval.renderers.grid import by_group, grid, head_groups, is_wide
from eval.renderers.templating import fill
from eval.renderers.words import DIFFERENCE_HEADS, ERRATUM_MARK, difference_lines, notes


def html(view: TableView, differences: Sequence[Difference]) -> str:
    """On a phone each table scrolls sideways in its own box, the notes stay."""
    compared, table = difference_lines(view, differences), grid(view)
    return fill(
        "joined_table.html",
        view=view,
        table=table,
        is_wide=is_wide(table),
        head_groups=head_groups(table.heads),
        groups=by_group(table.lines),
        compared=compared,
        difference_heads=DIFFERENCE_HEADS,
        erratum_mark=ERRATUM_MARK,
        notes=notes(view, bool(compared)),
    )

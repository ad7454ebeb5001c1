"""Tables as they are shown: each with its records, its differences and the paper's claims."""

from __future__ import annotations

from collections.abc import Sequence

from eval.papers.claims import list_papers, load_claims
from eval.papers.published import load_table, paper_of, select
from eval.papers.table import build, differences
from eval.papers.verdicts import evaluate
from eval.records.store import Backbone, Record
from eval.renderers.render import Item


def join(ids: Sequence[str], records: list[Record], backbone: Backbone = "shapes") -> list[Item]:
    """Every table with its differences and claims.

    A claim stands below its first table, one without a table below the paper's last.
    """
    of_tables = {paper_of(table_id) for table_id in ids}
    papers = [paper for paper in list_papers() if paper in of_tables]
    verdicts = {paper: evaluate(load_claims(paper), records, backbone) for paper in papers}
    items = []
    for table_id in ids:
        loaded = load_table(table_id)
        last = select(loaded.paper)[-1]
        below = [verdict for verdict in verdicts.get(loaded.paper, []) if (verdict.tables or [last])[0] == table_id]
        items.append(Item(build(loaded, records, backbone), differences(loaded, records, backbone), below))
    return items

"""Writes what the README takes from elsewhere: its table of claims from the records in `results/`, its badges from
`pyproject.toml`. Usage: python scripts/write_readme.py
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import anybadge

from eval.papers.claims import list_papers, load_claims
from eval.records.store import load_results
from eval.renderers.claims_summary import summary_of_records

ROOT = Path(__file__).resolve().parents[1]
README, BADGES = ROOT / "README.md", ROOT / "docs" / "images"
BEGIN, END = "<!-- claims: `make readme` writes this table -->", "<!-- /claims -->"
BLUE = "#2a6f97"  # white letters on it have a contrast of 5.5


def summary(results: Path) -> str:
    """As `astro claims --format summary --results RESULTS` prints it."""
    return summary_of_records(map(load_claims, list_papers()), load_results(results))


def with_table(readme: str, table: str) -> str:
    """The README with this table between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md: the marks {BEGIN} and {END} are expected, in this order")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def badges(project: dict[str, Any]) -> dict[str, str]:
    """A file's name -> its SVG."""
    shown = {
        "version": ("version", project["version"]),
        "python": ("Python", project["requires-python"]),
        "licence": ("licence", project["license"]),
    }
    svgs = {}
    for name, (label, value) in shown.items():
        badge = anybadge.Badge(label, value, default_color=BLUE)
        # anybadge counts its masks, so that the second call would give another file
        svgs[f"{name}.svg"] = badge.badge_svg_text.replace(badge.mask_str, f"astro_{name}")
    return svgs


def main() -> None:
    README.write_text(with_table(README.read_text(encoding="utf-8"), summary(ROOT / "results")), encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, svg in badges(project).items():
        (BADGES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()

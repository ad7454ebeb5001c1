"""The README's table and badges are fresh; lines are short, links lead somewhere, and what top-level files say of each
other agrees.
"""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

from eval.records.store import load_results
from tests.docs.pages import ROOT, anchors, links, pages

NAMES = [str(page.relative_to(ROOT)) for page in pages()]
WIDTH = 120
UNMEASURED = "Nothing of this has been run here with the released weights"
script = runpy.run_path(str(ROOT / "scripts" / "write_readme.py"))
project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_readmes_table_is_what_the_records_say() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script["with_table"](readme, script["summary"](ROOT / "results")) == readme, "run `make readme`"


def test_the_table_follows_the_records(tmp_path: Path) -> None:
    table = script["summary"](tmp_path)
    assert "| `shapes` | not run |" in table
    assert "| `shapes` | holds |" not in table
    readme = script["with_table"](f"a\n{script['BEGIN']}\nold\n{script['END']}\nb", table)
    assert readme == f"a\n{script['BEGIN']}\n{table}\n{script['END']}\nb"
    with pytest.raises(ValueError, match="marks"):
        script["with_table"]("no marks", table)


def test_the_badges_are_what_the_package_says() -> None:
    for name, svg in script["badges"](project).items():
        assert (ROOT / "docs" / "images" / name).read_text(encoding="utf-8") == svg, "run `make readme`"


def test_the_readme_says_what_was_not_run_on_wan() -> None:
    measured = any(record.backbone == "wan" for record in load_results(ROOT / "results"))
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (UNMEASURED in readme) is not measured


def test_the_readme_is_short_and_names_both_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line.split("#")[0].strip() for line in lines if line.startswith("make ")][:2] == ["make run", "make test"]


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_short_but_for_tables(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > WIDTH and not line.startswith("|")] == []


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in links(page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_citation_and_package_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_the_changelog_has_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert heads[0] == "Unreleased"
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert project["version"] in text


def test_the_papers_of_the_package_are_those_of_the_documents() -> None:
    papers = (ROOT / "PAPERS.md").read_text(encoding="utf-8")
    for label, url in project["urls"].items():
        title, number = label.removeprefix("Paper: "), url.rpartition("/")[2]
        assert re.search(rf"^## {title} — arXiv {number}", papers, re.MULTILINE), label

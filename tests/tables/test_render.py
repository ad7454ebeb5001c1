"""What the formats print, on a small table worked by hand: marks, groups, errata, deltas, escapes."""

from __future__ import annotations

import csv
import io
import json

import pytest

from eval.papers.published import Table, list_tables, load_table, parse_table
from eval.papers.table import build
from eval.renderers.grid import rank
from eval.renderers.latex import escape
from eval.renderers.render import render

SMALL = parse_table(
    """
id = "x-1"
title = "A & B"
source = "Paper, Table 1"
note = "A note on `keys`."
row_label = "Model"
columns = [
  { key = "size", label = "Size", direction = "none" },
  { key = "up", label = "Up", direction = "up", group = "Scores", unit = "%", shapes = "vq" },
  { key = "down", label = "Drift_x", direction = "down", group = "Scores" },
]
rows = [
  { label = "one", group = "G", published = { size = "1B", up = 84.30, down = 3.10 } },
  { label = "two", group = "G", published = { size = "2B", up = 84.3, down = 2 } },
  { label = "three", group = "G", base = "two", published = { size = "2B", up = 80.0, down = 2.5 }, delta.up = -4.3 },
  { label = "alone", published = { size = "2B", up = 99, down = "OOM" } },
]
errata = [{ rows = ["three"], columns = ["down"], note = "should be 2.4" }]
""",
    "x-1.toml",
)
HEAD = [
    "### A & B",
    "",
    "`x-1` · Paper, Table 1 · backbone `shapes`",
    "",
]
GRID = [
    "| Model | Size | Scores: Up (%) / vq ↑ | Scores: Drift_x ↓ |",
    "| :-- | --: | --: | --: |",
    "| **G** |  |  |  |",
    "| one | 1B / — | **84.30** / not run | 3.10 / — |",
    "| two | 2B / — | **84.3** / not run | **2** / — |",
    "| three | 2B / — | <ins>80.0</ins> (-4.3) / not run | <ins>2.5</ins> ‡ / — |",
    "|  |  |  |  |",
    "| alone | 2B / — | 99 / not run | OOM / — |",
]
LATEX = r"""\begin{tabular}{lrrr}
\toprule
 & \multicolumn{1}{c}{} & \multicolumn{2}{c}{Scores} \\
\cmidrule(lr){3-4}
Model & Size & Up (\%) / vq $\uparrow$ & Drift\_x $\downarrow$ \\
\midrule
\multicolumn{4}{l}{\textit{G}} \\
one & 1B / --- & \textbf{84.30} / not run & 3.10 / --- \\
two & 2B / --- & \textbf{84.3} / not run & \textbf{2} / --- \\
three & 2B / --- & \underline{80.0} ($-$4.3) / not run & \underline{2.5}$^\ddagger$ / --- \\
\midrule
alone & 2B / --- & 99 / not run & OOM / --- \\
\bottomrule
\end{tabular}"""


def printed(table: Table, fmt: str) -> str:
    return render(build(table, []), [], fmt)


def test_markdown_golden() -> None:
    lines = printed(SMALL, "markdown").splitlines()
    assert lines[: len(HEAD) + len(GRID)] == [*HEAD, *GRID]
    assert "- A note on `keys`." in lines
    assert "- ‡ Erratum (three; down): should be 2.4" in lines


def test_latex_golden() -> None:
    text = printed(SMALL, "latex")
    assert LATEX in text
    assert r"\caption{A \& B (Paper, Table 1; backbone shapes).}" in text
    assert r"A note on \texttt{keys}." in text


@pytest.mark.parametrize(
    ("table_id", "wide"),
    [("reward-forcing-5", True), ("teleboost-6", False), ("astrolabe-3", True), ("astrolabe-1", False)],
)
def test_latex_of_more_than_eight_columns_is_as_wide_as_the_page(table_id: str, wide: bool) -> None:
    """As printed: of Table 6 of TeleBoost, which has dimensions for rows, three."""
    text = printed(load_table(table_id), "latex")
    assert text.splitlines()[1] == (r"\begin{table*}[t]" if wide else r"\begin{table}[t]")
    assert text.endswith(r"\end{table*}" if wide else r"\end{table}")
    assert ("graphicx" in text.splitlines()[0]) == wide
    assert (r"\resizebox{\textwidth}{!}{%" + "\n" + r"\begin{tabular}" in text) == wide
    assert (r"\end{tabular}" + "\n}" in text) == wide


def test_html_marks_and_groups() -> None:
    text = printed(SMALL, "html")
    assert '<th colspan="2" scope="colgroup">Scores</th>' in text
    assert '<span class="published"><strong>84.30</strong></span>' in text
    assert '<span class="published"><u>80.0</u> <small>(-4.3)</small></span>' in text
    assert '<span class="published"><u>2.5</u> ‡</span>' in text
    assert "A &amp; B" in text


def test_csv_keeps_the_printed_digits() -> None:
    rows = list(csv.DictReader(io.StringIO(printed(SMALL, "csv"))))
    assert [(row["label"], row["group"], row["up"], row["down"]) for row in rows] == [
        ("one", "G", "84.30", "3.10"),
        ("two", "G", "84.3", "2"),
        ("three", "G", "80.0", "2.5"),
        ("alone", "", "99", "OOM"),
    ]


def test_json_has_numbers_or_null_and_texts_apart() -> None:
    data = json.loads(printed(SMALL, "json"))
    assert set(data) == {"id", "title", "source", "columns", "rows"}
    assert data["columns"][1] == {"key": "up", "label": "Up", "direction": "up"}
    assert data["rows"][3] == {
        "label": "alone",
        "group": "",
        "published": {"size": None, "up": 99.0, "down": None},
        "measured": {"size": None, "up": None, "down": None},
        "text": {"size": "2B", "down": "OOM"},
    }
    assert "text" not in json.loads(printed(load_table("reward-forcing-6"), "json"))["rows"][0]


def test_transposed_table_prints_as_the_paper_does() -> None:
    lines = printed(load_table("teleboost-6"), "markdown").splitlines()
    assert lines[4] == "| VBench | Wan2.1 | DanceGRPO | VIPO |"
    assert (
        lines[6]
        == "| Dynamic Degree / dynamics ↑ | <ins>52.77</ins> / not run | 45.83 / not run | **63.89** / not run |"
    )


def test_rows_that_are_no_alternatives_have_no_best() -> None:
    assert "**" not in printed(load_table("teleboost-1"), "markdown")
    assert "58.71" in printed(load_table("teleboost-1"), "markdown")


def test_settings_have_no_measured_half() -> None:
    text = printed(load_table("astrolabe-s1"), "markdown")
    assert "| Timestep Shift | 5.0 |" in text
    assert "not run" not in text


@pytest.mark.parametrize(
    ("values", "direction", "expected"),
    [
        ({"a": 1, "b": 3, "c": 2}, "up", {"b": "best", "c": "second"}),
        ({"a": 1, "b": 3, "c": 2}, "down", {"a": "best", "c": "second"}),
        ({"a": 3, "b": 3, "c": 2}, "up", {"a": "best", "b": "best", "c": "second"}),
        ({"a": 1, "b": 2}, "up", {"b": "best"}),  # of two the second is the last
        ({"a": 2, "b": 2, "c": 2}, "up", {}),
        ({"a": 1}, "up", {}),
        ({"a": 1, "b": 3, "c": 2}, "none", {}),
    ],
)
def test_rank(values: dict[str, float], direction: str, expected: dict[str, str]) -> None:
    assert rank(values, direction) == expected


def test_latex_escapes() -> None:
    assert escape(r"50% & a_b #1 {x} ~ ^ \ $") == (
        r"50\% \& a\_b \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$"
    )
    assert escape("α ± × ↑ † § —") == r"$\alpha$ $\pm$ $\times$ $\uparrow$ $^\dagger$ \S{} ---"


@pytest.mark.parametrize("table_id", list_tables())
def test_latex_is_ascii_and_balanced(table_id: str) -> None:
    text = printed(load_table(table_id), "latex")
    assert text.isascii()
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{")
    body = text[text.index(r"\toprule") : text.index(r"\end{tabular}")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and r"\multicolumn" not in line]
    columns = {line.replace(r"\&", "").count("&") for line in rows}
    assert len(columns) == 1

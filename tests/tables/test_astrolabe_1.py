"""Astrolabe Table 1: the printed values, the stable JSON form, and cells and verdicts from synthetic records."""

from __future__ import annotations

import csv
import functools
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from astro_cli.commands.table import table as table_command
from astro_cli.config.errors import IntegrityError, RecordError
from eval.papers.published import Table, list_tables, load_table, parse_table
from eval.papers.table import Difference, build, differences
from eval.records.store import Record, append, record_path
from eval.renderers.render import Item, render, render_many
from tests import claim_records
from tests.claim_records import PROMPTS, record

KEYS = ["total", "quality", "semantic", "hpsv3", "mq", "throughput"]
PRINTED = """
LTX-Video              80.00 82.30 70.79  8.32 1.34 8.98
Wan2.1                 84.26 85.30 80.09  9.26 1.62 0.78
SkyReels-V2            82.67 84.70 74.53  9.08 1.59 0.49
MAGI-1                 79.18 82.04 67.74  7.95 1.52 0.19
NOVA                   80.12 80.39 79.05  8.21 1.63 0.88
PyramidFlow            81.72 84.74 69.62  8.76 1.50 6.70
CausVid                81.20 84.05 69.80  7.56 1.22 17.0
Reward Forcing         84.13 84.84 81.32  8.74 1.65 23.1
Self-Forcing           83.74 84.48 80.77  9.36 1.65 17.0
+ Ours (Self-Forcing)  83.79 84.51 80.92 10.72 1.71 17.0
LongLive               83.22 83.68 81.37  9.38 1.51 20.7
+ Ours (LongLive)      84.93 85.83 81.36 11.03 1.64 20.7
Causal Forcing         84.04 84.59 81.84  9.48 1.69 17.0
+ Ours (Causal Forcing) 84.46 85.15 81.72 10.84 1.80 17.0
"""
BASE, TUNED, TUNED_ROW = "causal_forcing_shapes", "astrolabe_causal_shapes", "+ Ours (Causal Forcing)"
pair = functools.partial(claim_records.pair, arms=(BASE, TUNED))


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table("astrolabe-1")


def printed_rows() -> list[tuple[str, list[str]]]:
    rows = [line.rsplit(maxsplit=6) for line in PRINTED.strip().splitlines()]
    return [(row[0].strip(), row[1:]) for row in rows]


def difference(table: Table, records: list[Record], key: str, backbone: str = "shapes") -> Difference:
    return next(d for d in differences(table, records, backbone) if (d.row, d.key) == (TUNED_ROW, key))


def cells(table: Table, records: list[Record], label: str, backbone: str = "shapes") -> dict:
    return next(row.measured for row in build(table, records, backbone).rows if row.label == label)


# --- as printed


def test_values_as_printed(table: Table) -> None:
    found = [(row.label, [str(row.published[key]) for key in KEYS]) for row in table.rows]
    assert len(found) == 14
    assert found == printed_rows()


def test_columns_and_groups(table: Table) -> None:
    assert [(column.key, column.label, column.direction) for column in table.columns] == [
        (key, label, "up")
        for key, label in zip(KEYS, ["Total", "Quality", "Semantic", "HPSv3", "MQ", "Throughput"], strict=True)
    ]
    groups = [row.group for row in table.rows]
    assert groups == ["Diffusion Models"] * 2 + ["AR Models"] * 4 + ["Distilled AR Models"] * 8


@pytest.mark.parametrize(
    ("row", "deltas"),  # the paper's own superscripts; its +1.13 and +1.11 for MQ are .13 and .11 by subtraction
    [
        ("+ Ours (Self-Forcing)", [0.05, 0.03, 0.15, 1.36, 0.06, 0.0]),
        ("+ Ours (LongLive)", [1.71, 2.15, -0.01, 1.65, 0.13, 0.0]),
        ("+ Ours (Causal Forcing)", [0.42, 0.56, -0.12, 1.36, 0.11, 0.0]),
    ],
)
def test_published_differences(table: Table, row: str, deltas: list[float]) -> None:
    assert [d.published for d in differences(table, []) if d.row == row] == deltas  # exact: subtracted as decimals


# --- the stable JSON form


def test_stable_json_has_exactly_these_keys(table: Table) -> None:
    records = pair("vq", 1.0)
    data = json.loads(render(build(table, records), differences(table, records), "json"))
    assert set(data) == {"id", "title", "source", "columns", "rows"}
    assert all(set(column) == {"key", "label", "direction"} for column in data["columns"])
    assert all(set(row) == {"label", "group", "published", "measured"} for row in data["rows"])
    assert all(list(row["published"]) == KEYS == list(row["measured"]) for row in data["rows"])
    assert data["rows"][0]["published"]["total"] == 80.0
    filled = [cell for row in data["rows"] for cell in row["measured"].values() if cell is not None]
    assert len(filled) == 2
    assert all(set(cell) == {"mean", "low", "high", "n", "backbone"} for cell in filled)


def test_json_of_several_is_a_list(table: Table) -> None:
    assert [each["id"] for each in json.loads(render_many([Item(build(table, []), [])], "json"))] == ["astrolabe-1"]


# --- records


def test_measured_cell_by_hand(table: Table) -> None:
    # base scores 0..7: mean 3.5
    cell = cells(table, pair("vq", 1.0), "Causal Forcing")["hpsv3"]
    assert (cell.mean, cell.n, cell.backbone) == (3.5, 3, "shapes")
    assert cell.low < 3.5 < cell.high
    assert cells(table, pair("vq", 1.0), "Causal Forcing")["mq"] is None


def test_backbones_do_not_mix(table: Table) -> None:
    assert cells(table, pair("vq", 1.0), "Causal Forcing", "wan")["hpsv3"] is None
    on_wan = [r.model_copy(update={"backbone": "wan"}) for r in pair("vq", 1.0)]
    assert cells(table, on_wan, "Causal Forcing")["hpsv3"] is None
    with pytest.raises(RecordError, match="allowed: shapes, wan"):
        build(table, [], "shape")


def test_other_benchmarks_stay_out(table: Table) -> None:
    elsewhere = [r.model_copy(update={"benchmark": "shapes_long"}) for r in pair("vq", 1.0)]
    assert cells(table, elsewhere, "Causal Forcing")["hpsv3"] is None


def test_newer_record_replaces_older(table: Table) -> None:
    ahead = record(BASE, "vq", [1.0] * PROMPTS, created="2099-01-01T00:00:00+00:00")  # of a wrong clock
    newer = record(BASE, "vq", [9.0] * PROMPTS, created="2026-02-01T00:00:00+00:00")
    assert cells(table, [ahead, newer], "Causal Forcing")["hpsv3"].mean == 9.0


def test_records_of_another_prompt_set_do_not_enter_the_mean(table: Table) -> None:
    ahead = record(BASE, "vq", [1.0] * PROMPTS, created="2099-01-01T00:00:00+00:00")
    newer = record(BASE, "vq", [9.0] * 4, seed=1, prompt_set_hash="q", created="2026-02-01T00:00:00+00:00")
    cell = cells(table, [ahead, newer], "Causal Forcing")["hpsv3"]
    assert (cell.mean, cell.n) == (9.0, 1)


def test_metric_that_applies_nowhere_is_not_measured(table: Table) -> None:
    assert cells(table, [record(BASE, "vq", [None] * PROMPTS)], "Causal Forcing")["hpsv3"] is None


def test_records_that_do_not_belong_together(table: Table) -> None:
    with pytest.raises(RecordError, match="direction"):
        build(table, [record(BASE, "vq", [1.0], direction="down")])
    uneven = [record(BASE, "vq", [1.0] * n, seed=n, protocol={}) for n in (3, 4)]
    with pytest.raises(RecordError, match="3 and 4 scores"):
        build(table, uneven)


# --- differences


@pytest.mark.parametrize(
    ("key", "metric", "gain", "spread", "expected"),
    [
        ("hpsv3", "vq", 1.0, 0.5, "agrees"),  # published +1.36
        ("hpsv3", "vq", -1.0, 0.5, "disagrees"),
        ("hpsv3", "vq", 0.0, 0.5, "undecided"),
        ("semantic", "ta", -1.0, 0.5, "agrees"),  # published -0.12
        ("semantic", "ta", 1.0, 0.5, "disagrees"),
        ("throughput", "throughput", 0.05, 0.0, "agrees"),  # published 0; 2 % of the base's 3.5 is 0.07
        ("throughput", "throughput", 0.1, 0.0, "disagrees"),
    ],
)
def test_verdict_of_paired_records(
    table: Table, key: str, metric: str, gain: float, spread: float, expected: str
) -> None:
    found = difference(table, pair(metric, gain, spread), key)
    assert found.verdict == expected
    assert found.measured is not None
    assert found.measured.mean == pytest.approx(gain)
    assert found.measured.n == 3
    assert found.base == "Causal Forcing"


def test_differences_use_the_seeds_both_have(table: Table) -> None:
    records = [r for r in pair("vq", 1.0) if (r.arm, r.seed) != (TUNED, 2)]
    found = difference(table, records, "hpsv3").measured
    assert found is not None
    assert found.n == 2


def test_differences_need_the_same_prompts(table: Table) -> None:
    records = [r.model_copy(update={"prompt_set_hash": "q"}) if r.arm == TUNED else r for r in pair("vq", 1.0)]
    found = difference(table, records, "hpsv3")
    assert (found.measured, found.verdict) == (None, "not comparable")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompt_set_hash": "q"}, ["prompt set p", "prompt set q"]),
        ({"protocol": {"num_frames": 24, "prompts": PROMPTS, "device": "cpu"}}, ["num_frames 12", "num_frames 24"]),
        (
            {"protocol": {"num_frames": 12, "prompts": PROMPTS, "device": "cpu", "norm": "raw"}},
            ["norm None", "norm raw"],
        ),
    ],
)
def test_a_column_does_not_mix_protocols(table: Table, change: dict[str, object], named: list[str]) -> None:
    records = [r.model_copy(update=change) if r.arm == TUNED else r for r in pair("vq", 1.0)]
    with pytest.raises(IntegrityError, match="mixes protocols") as caught:
        build(table, records)
    text = str(caught.value)
    assert all(part in text for part in ["astrolabe-1: hpsv3", "Causal Forcing", TUNED_ROW, *named])
    assert "hint: " in text


def test_too_few_pairs_decide_nothing(table: Table) -> None:
    records = [record(arm, "vq", [value] * 5) for arm, value in ((BASE, 0.0), (TUNED, 1.0))]
    assert difference(table, records, "hpsv3").verdict == "undecided"


def test_differences_without_records_or_counterpart(table: Table) -> None:
    assert difference(table, [], "hpsv3").verdict == "not run"
    assert difference(table, [], "total").verdict is None
    assert len(differences(table, [])) == 3 * 6


# --- printing


def test_markdown(table: Table) -> None:
    records = pair("vq", 1.0) + pair("mq", -1.0, 0.5)
    text = render(build(table, records), differences(table, records), "markdown")
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("| Causal Forcing |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "84.04 / —"
    assert cells[3] == "**81.84** / not run"  # the best Semantic of the distilled models
    assert cells[4].startswith("9.48 / 3.5 ± ")
    assert cells[4].endswith("(3 seeds)")
    assert "HPSv3 / vq ↑" in text
    assert "| +1.36 | +1.000 [+1.000, +1.000] (3 seeds) | agrees |" in text
    assert "disagrees |" in text
    assert "HPSv3 is `vq`" in text
    assert "not comparable" in text
    assert len({line.count("|") for line in lines[4:22]}) == 1


def test_markdown_on_wan_has_no_empty_columns(table: Table) -> None:
    assert "84.04 / not run" in render(build(table, [], "wan"), [], "markdown")


def test_csv(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(render(build(table, pair("vq", 1.0)), [], "csv"))))
    assert [row["label"] for row in rows] == [label for label, _ in printed_rows()]
    assert [[row[key] for key in KEYS] for row in rows] == [values for _, values in printed_rows()]
    base = next(row for row in rows if row["label"] == "Causal Forcing")
    assert (float(base["hpsv3_measured"]), base["hpsv3_n"]) == (3.5, "3")
    assert (base["mq_measured"], base["total_measured"]) == ("not run", "—")


class Tags(HTMLParser):
    """Collects text and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html(table: Table) -> None:
    hostile = table.model_copy(update={"title": "<script>alert(1)</script>", "note": "a < b & `c`"})
    fragment = render(build(hostile, pair("vq", 1.0)), differences(table, pair("vq", 1.0)), "html")
    tags = Tags()
    tags.feed(fragment)
    assert tags.open == []
    assert fragment.startswith("<div")
    assert "overflow-x:auto" in fragment
    assert "<script>" not in fragment
    assert "a &lt; b &amp; <code>c</code>" in fragment
    assert {"84.04", "not run", "agrees", "MAGI-1"} <= set(tags.text)


def test_unknown_format(table: Table) -> None:
    with pytest.raises(RecordError, match="allowed: markdown, html, latex, csv, json") as caught:
        render(build(table, []), [], "markdwn")
    assert "did you mean 'markdown'?" in str(caught.value)


# --- loading


def test_ids() -> None:
    assert "astrolabe-1" in list_tables()
    with pytest.raises(RecordError, match="did you mean 'astrolabe-1'"):
        load_table("astrolab-1")


MINIMAL = """
id = "x-1"
title = "t"
source = "s"
columns = [{ key = "a", label = "A", direction = "up" }]
rows = [{ label = "r", published = { a = 1.0 } }]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "x-1"', "id = ", "not valid TOML"),
        ('id = "x-1"', 'id = "x-2"', "must be the file's name"),
        ('direction = "up"', 'direction = "higher"', "direction"),
        ("{ a = 1.0 }", "{ b = 1.0 }", "no column 'b'"),
        ("{ a = 1.0 }", '{ a = 1.0 }, base = "q"', "no row 'q'"),
        ("rows = [", 'rows = [{ label = "r", published = {} }, ', "used twice"),
        ('title = "t"', 'title = "t"\ntitel = "t"', "titel"),
    ],
)
def test_wrong_toml_is_a_user_error(old: str, new: str, message: str) -> None:
    assert parse_table(MINIMAL, "x-1.toml").id == "x-1"
    with pytest.raises(RecordError) as caught:
        parse_table(MINIMAL.replace(old, new, 1), "x-1.toml")
    assert message in str(caught.value)


# --- the command


def test_command_prints_records_of_the_results_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for each in pair("vq", 1.0):
        append(record_path(tmp_path, "shapes"), each)
    table_command(["astrolabe-1"], "json", "shapes", tmp_path)
    data = json.loads(capsys.readouterr().out)
    assert data["rows"][12]["measured"]["hpsv3"]["mean"] == 3.5


@pytest.mark.parametrize("name", ["astrolabe", "all"])
def test_command_takes_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    table_command([name], "json", "shapes", tmp_path)
    assert "astrolabe-1" in [each["id"] for each in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("astrolab", "json", "shapes"), "did you mean 'astrolabe'?"),
        (("astrolabe-1", "yaml", "shapes"), "allowed: markdown, html, latex, csv, json"),
        (("astrolabe-1", "json", "wann"), "allowed: shapes, wan"),
    ],
)
def test_command_refuses_wrong_names(tmp_path: Path, arguments: tuple[str, str, str], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        table_command([arguments[0]], *arguments[1:], tmp_path)
    assert message in str(caught.value)


def test_command_refuses_a_missing_results_folder(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such folder"):
        table_command(["astrolabe-1"], "json", "shapes", tmp_path / "typo")

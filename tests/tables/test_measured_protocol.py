"""What tables say about how the measured numbers were made: protocol, prompts, totals and their parts, and intervals of
too little.
"""

from __future__ import annotations

import csv
import io

import pytest

from astro_cli.config.errors import IntegrityError
from eval.papers.published import Table, load_table
from eval.papers.table import build, differences
from eval.records.store import Record
from eval.renderers.render import render
from tests.claim_records import record

BASE, TUNED = "causal_forcing_shapes", "astrolabe_causal_shapes"


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table("astrolabe-1")


def on_wan(metric: str, prompt_set: str, **protocol: object) -> Record:
    made = {
        "prompt_set": prompt_set,
        "prompts": 4,
        "samples_per_prompt": 5,
        "num_frames": 81,
        "fps": 16.0,
        "resolution": [832, 480],
    }
    made |= {"decoder": "pyav"} | protocol
    changes = {"benchmark": "vbench", "backbone": "wan", "prompt_set_hash": prompt_set, "protocol": made}
    return record("self_forcing", metric, [80.0, 81.0, 82.0, 83.0]).model_copy(update=changes)


@pytest.mark.parametrize(
    ("part", "changed", "named"),
    [
        (
            "quality",
            {"prompt_set": "vbench"},
            ["total has prompt set vbench-extended", "its part quality has prompt set vbench"],
        ),  # a column too
        ("color", {"prompt_set": "vbench"}, ["its part color has prompt set vbench"]),
        (
            "color",
            {"prompt_set": "vbench-extended", "fps": 24.0},
            ["total has fps 16.0", "its part color has fps 24.0"],
        ),
    ],
)
def test_a_total_is_of_the_prompts_and_videos_of_its_parts(
    table: Table, part: str, changed: dict, named: list[str]
) -> None:
    whole = on_wan("total", "vbench-extended")
    build(
        table, [whole, on_wan(part, "vbench-extended", scorer="another")], "wan"
    )  # of another scorer a part always is
    with pytest.raises(IntegrityError) as caught:
        build(table, [whole, on_wan(part, **changed)], "wan")
    assert all(text in str(caught.value) for text in ["astrolabe-1: Self-Forcing, total", *named, "hint: "])


def test_the_protocol_of_a_column_stands_below_the_table(table: Table) -> None:
    view = build(table, [on_wan("total", "vbench-extended"), on_wan("quality", "vbench-extended")], "wan")
    lines = render(view, [], "markdown").splitlines()
    made = "prompt set `vbench-extended` (4 prompts, 5 videos each), 81 frames, 16 fps, 832 × 480, decoder pyav"
    assert f"- Measured: Total, Quality on `vbench`, {made}." in lines
    assert not any("§" in line for line in lines)
    assert "<code>vbench-extended</code>" in render(view, [], "html")
    assert not any(
        line.startswith("- Measured:") for line in render(build(table, [], "wan"), [], "markdown").splitlines()
    )


def test_numbers_of_other_prompts_than_published_are_marked(table: Table) -> None:
    preference = on_wan("hpsv3", "moviegen").model_copy(update={"benchmark": "hpsv3"})
    view = build(table, [on_wan("total", "vbench"), preference], "wan")
    lines = render(view, [], "markdown").splitlines()
    there = "Total on prompt set `vbench` (4 prompts, 5 videos each), published on `vbench-extended`"
    assert f"- § Measured on other prompts than published: {there}." in lines
    row = next(line for line in lines if line.startswith("| Self-Forcing |")).split("|")
    assert row[2].endswith("(1 seed) § ")
    assert row[5].endswith("(1 seed) ")
    assert r"(1 seed) \S{}" in render(view, [], "latex")


def test_short_and_long_videos_of_an_arm_stand_each_in_their_table() -> None:
    found = []
    for metric, benchmark in (("hpsv3", "hpsv3"), ("mq", "videoalign")):
        for suite, frames, score in ((benchmark, 81, 9.0), (f"{benchmark}-long", 477, 7.0)):
            one = on_wan(metric, "moviegen", num_frames=frames, samples_per_prompt=1)
            found.append(one.model_copy(update={"benchmark": suite, "scores": [score] * 4}))
    for table_id, score in (("astrolabe-1", 9.0), ("astrolabe-2", 7.0)):
        row = next(row for row in build(load_table(table_id), found, "wan").rows if row.label == "Self-Forcing")
        means = {key: cell.mean for key, cell in row.measured.items() if cell is not None}
        assert means == {"hpsv3": score, "mq": score}, table_id


def test_a_figure_without_numbers_is_a_table_of_what_was_measured() -> None:
    found = [
        record(arm, "vq", [value] * 4)
        for arm, value in (("astrolabe_all_shapes", 2.0), ("astrolabe_beta_low_shapes", 1.0))
    ]
    beta = load_table("astrolabe-beta")
    lines = render(build(beta, found), differences(beta, found), "markdown").splitlines()
    assert "| beta 1.0 | — / 2.000 ± 0.000 (1 seed) | — / not run |" in lines
    row = next(csv.DictReader(io.StringIO(render(build(beta, found), [], "csv"))))
    assert (row["label"], row["hpsv3"], row["hpsv3_measured"]) == ("beta 1.0", "", "2.0")


@pytest.mark.parametrize(("prompts", "marked"), [(128, False), (100, True)])
def test_a_published_set_may_be_so_many_of_a_list(prompts: int, marked: bool) -> None:
    records = [
        on_wan("drift", "moviegen", prompts=prompts).model_copy(update={"benchmark": "drift", "direction": "down"})
    ]
    assert ("§" in render(build(load_table("reward-forcing-2"), records, "wan"), [], "markdown")) == marked


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_prompt_under_one_seed_has_no_interval(table: Table, seeds: int) -> None:
    records = [
        record(arm, "vq", [value + seed], seed) for seed in range(seeds) for arm, value in ((BASE, 2.0), (TUNED, 3.0))
    ]
    view, compared = build(table, records), differences(table, records)
    cell = next(row.measured["hpsv3"] for row in view.rows if row.label == "Causal Forcing")
    assert cell is not None
    assert (cell.low is None, cell.high is None) == (seeds == 1, seeds == 1)
    text = render(view, compared, "markdown")
    assert ("9.48 / 2.000 (1 seed) |" in text) == (seeds == 1)
    assert ("| +1.36 | +1.000 (1 seed) | undecided |" in text) == (seeds == 1)
    assert ("one prompt under one seed has none" in text) == (seeds == 1)
    row = next(
        row for row in csv.DictReader(io.StringIO(render(view, compared, "csv"))) if row["label"] == "Causal Forcing"
    )
    assert (row["hpsv3_low"] == "", row["hpsv3_n"]) == (seeds == 1, str(seeds))
    assert "null" in render(view, compared, "json")


def test_bases_that_were_trained_once_are_named(table: Table) -> None:
    """Seeds of a base vary its noise, those of a tuned arm its training too: below the table stands which is which."""
    records = [record(BASE, "vq", [2.0] * 8, seed) for seed in range(3)]
    records += [
        record(TUNED, "vq", [3.0] * 8, seed).model_copy(update={"weights_hash": f"w{seed}"}) for seed in range(3)
    ]
    once = [line for line in render(build(table, records), [], "markdown").splitlines() if "One training seed" in line]
    assert len(once) == 1
    assert once[0].startswith("- One training seed: Causal Forcing. The same weights under every seed")
    assert "not the training of its base" in once[0]
    for left in (
        records[:1] + records[3:],
        [each.model_copy(update={"weights_hash": "unknown"}) for each in records[:3]],
    ):
        assert "One training seed" not in render(build(table, left), [], "markdown")

"""Recomputation of printed numbers: what comes out, what the known errata are, and what a new mismatch looks like."""

from __future__ import annotations

from decimal import Decimal

import pytest

from astro_cli.config.errors import RecordError
from eval.papers.published import Table, list_tables, load_table, parse_table
from eval.papers.verify import NumberCheck, verify, verify_table

AAPT_TEMPORAL = "(subject_consistency + background_consistency + motion_smoothness + 0.5 dynamic_degree) / 3.5"


@pytest.fixture(scope="module")
def outcomes() -> list[NumberCheck]:
    return verify(list_tables())


def test_every_deviation_has_an_erratum(outcomes: list[NumberCheck]) -> None:
    assert len(outcomes) == 274
    assert [outcome for outcome in outcomes if outcome.verdict == "mismatch"] == []


def test_known_errata_are_exactly_these(outcomes: list[NumberCheck]) -> None:
    found = {
        (o.table, o.row, o.column) for o in outcomes if o.verdict == "erratum known" and o.table != "reward-forcing-4"
    }
    assert found == {
        ("astrolabe-1", "+ Ours (LongLive)", "mq"),
        ("astrolabe-1", "+ Ours (Causal Forcing)", "mq"),
        ("reward-forcing-2", "CausVid", "total"),
        ("reward-forcing-2", "LongLive", "total"),
        ("reward-forcing-2", "Ours", "total"),
        *(
            ("reward-forcing-3", "Ours", key)
            for key in ("background_consistency", "motion_smoothness", "dynamic_degree", "imaging_quality")
        ),
        ("teleboost-2", "Real-world fluid effects", "f1_all"),
        *(("teleboost-1", row, "margin") for row in ("Motion quality", "Text alignment", "Preservation", "Overall")),
        ("teleboost-3", "BPGO (T2V)", ""),
        ("teleboost-3", "BPGO (I2V)", ""),
        ("teleboost-4", "BPGO", ""),
        *(("teleboost-7", row, "total") for row in ("Wan2.1", "DanceGRPO", "ViPO")),
        ("teleboost-7", "ViPO", "mq"),
        *(("teleboost-8", "Self-paced Qwen2.5VL-72B (14B)", key) for key in ("quality", "total")),
        ("teleboost-9", "Joint train", "total"),
    }


@pytest.mark.parametrize(
    (
        "table",
        "check",
        "row",
        "column",
        "recomputed",
    ),  # worked independently; the numbers of the printed tables are inputs
    [
        ("reward-forcing-6", "VBench quality from dimensions", "CausVid", "quality", 83.926),
        ("reward-forcing-7", "VBench semantic from dimensions", "LongLive", "semantic", 81.371),
        ("reward-forcing-7", "VBench total from dimensions", "Reward Forcing", "total", 84.129),
        ("reward-forcing-2", "VBench long total from dimensions", "Ours", "total", 81.720),
        ("teleboost-2", "at most over_3px", "Real-world fluid effects", "f1_all", 0.0),
        ("teleboost-2", "at most over_3px", "Simulation fluid effects", "f1_all", 10.0),
        ("teleboost-8", "VBench total from dimensions", "Wan14B", "total", 81.464),
        ("teleboost-9", "(4 quality + semantic) / 5", "Joint train", "total", 79.428),
        ("aapt-1", "(aesthetic_quality + imaging_quality) / 2", "Ours, 736×416", "frame_quality", 62.16),
        ("aapt-1", AAPT_TEMPORAL, "Ours, 736×416", "temporal_quality", 89.786),
        ("delta-forcing-3", "each column sums to 10", "", "dynamic", 10),
        ("teleboost-4", "text: columns in which the row is best", "BPGO", "", 4),
        ("reward-forcing-1", "text: Ours / SkyReels-V2", "Ours", "throughput", 47.143),
    ],
)
def test_recomputed_values(
    outcomes: list[NumberCheck], table: str, check: str, row: str, column: str, recomputed: float
) -> None:
    found = next(o for o in outcomes if (o.table, o.check, o.row, o.column) == (table, check, row, column))
    assert found.recomputed == pytest.approx(recomputed, abs=5e-4)


def test_all_fifteen_judge_means_come_out(outcomes: list[NumberCheck]) -> None:
    means = [o for o in outcomes if o.check == "mean of the printed scores"]
    assert len(means) == 15
    assert {o.verdict for o in means} == {"ok"}


def test_ratings_are_multiples_of_1_355_not_of_1_400(outcomes: list[NumberCheck]) -> None:
    found = {(o.check, o.verdict) for o in outcomes if o.table == "reward-forcing-4"}
    assert found == {("whole multiple of 1/400", "erratum known"), ("whole multiple of 1/355", "ok")}


def test_a_changed_number_is_a_mismatch() -> None:
    table = load_table("astrolabe-2")
    row = table.rows[0]
    wrong = row.model_copy(
        update={"published": row.published | {"total": Decimal("75.92")}}
    )  # (4 x 80.77 + 53.37) / 5 = 75.29
    found = verify_table(table.model_copy(update={"rows": [wrong, *table.rows[1:]]}))
    assert [(o.row, o.printed, round(o.difference, 4)) for o in found if o.verdict == "mismatch"] == [
        ("SkyReels-V2", 75.92, 0.63)
    ]


def made(check: str) -> Table:
    text = f"""
id = "x-1"
title = "t"
source = "s"
columns = [{{ key = "a", label = "A", direction = "up" }}, {{ key = "b", label = "B", direction = "down" }}]
rows = [
  {{ label = "r", published = {{ a = 2.5, b = 1 }} }},
  {{ label = "q", published = {{ a = 2.5, b = "OOM" }}, base = "r", delta = {{ a = 0.5 }} }},
]
checks = [{check}]
"""
    return parse_table(text, "x-1.toml")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ('{ formula = "linear", column = "a", weights = { c = 1 }, tolerance = 0 }', "prints no number in column 'c'"),
        ('{ formula = "quoted", row = "z", column = "a", printed = 1, tolerance = 0 }', "no row 'z'"),
        ('{ formula = "best_count", row = "r", printed = 1, tolerance = 0 }', "prints no number in column 'b'"),
    ],
)
def test_a_check_of_what_is_not_there(check: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        verify_table(made(check))
    assert message in str(caught.value)


def test_a_value_below_its_bound_is_what_it_should_be() -> None:
    # row r: b = 1 is below a = 2.5, so nothing is to be corrected; the other way round 2.5 should be 1 at most
    (below, *_) = verify_table(made('{ formula = "at_most", column = "b", bound = "a", tolerance = 0 }'))
    assert (below.row, below.recomputed, below.verdict) == ("r", 1.0, "ok")
    table = made('{ formula = "at_most", column = "a", bound = "b", tolerance = 0 }')
    (above,) = verify_table(table.model_copy(update={"rows": table.rows[:1]}))
    assert (above.recomputed, above.difference, above.verdict) == (1.0, 1.5, "mismatch")


def test_printed_deltas_against_the_base() -> None:
    # 2.5 - 2.5 = 0, printed 0.5
    (found,) = verify_table(made('{ formula = "delta", tolerance = 0 }'))
    assert (found.row, found.recomputed, found.difference, found.verdict) == ("q", 0.0, 0.5, "mismatch")

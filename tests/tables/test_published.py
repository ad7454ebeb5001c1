"""Every published table as data: how many rows and columns it has, and cells copied by hand from the papers."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from astro_cli.config.errors import RecordError
from astro_cli.config.toml import list_recipes
from astro_cli.zoo.entries import ENTRIES
from eval.papers.claims import Bound, Compare, Most, Part, Published, Trend, list_papers, load_claims
from eval.papers.published import list_tables, load_table, parse_table, select
from eval.papers.verdicts import ARM_SUFFIX
from eval.prompt_sets.catalog import FIRST, NAMES
from eval.records.store import BACKBONES
from eval.scoring.outcome_writer import checked_arm

# Rows and columns of numbers (or settings) as printed; a transposed table has the paper's columns as rows.
SHAPES = {
    "aapt-1": (2, 11),
    "astrolabe-1": (14, 6),
    "astrolabe-2": (8, 5),
    "astrolabe-3": (8, 9),
    "astrolabe-4a": (4, 3),
    "astrolabe-4b": (4, 3),
    "astrolabe-4c": (8, 4),
    "astrolabe-adaptive": (2, 2),
    "astrolabe-beta": (2, 2),
    "astrolabe-s1": (25, 1),
    "delta-forcing-1": (6, 12),
    "delta-forcing-2": (6, 7),
    "delta-forcing-3": (4, 4),
    "reward-forcing-1": (11, 5),
    "reward-forcing-2": (5, 11),
    "reward-forcing-3": (11, 5),
    "reward-forcing-4": (4, 3),
    "reward-forcing-5": (3, 16),
    "reward-forcing-6": (4, 9),
    "reward-forcing-7": (4, 11),
    "teleboost-1": (5, 3),
    "teleboost-2": (3, 4),
    "teleboost-3": (6, 4),
    "teleboost-4": (4, 9),
    "teleboost-5": (2, 3),
    "teleboost-6": (3, 9),
    "teleboost-7": (3, 5),
    "teleboost-8": (6, 19),
    "teleboost-9": (3, 7),
    "teleboost-stages": (4, 3),
}
FIGURES = {
    "astrolabe-adaptive": "Figure 8 (b)",
    "astrolabe-beta": "Figure 7 (b)",
    "teleboost-stages": "sections 2 to 4",
}  # figures as tables: no number is printed
CELLS = [
    ("aapt-1", "Ours, 1280×720", "dynamic_degree", "63.29"),  # supplement H, Table 1, second line
    ("astrolabe-2", "+ Ours (LongLive)", "quality", "86.12"),  # Table 2, second "+ Ours"
    ("astrolabe-3", "LongLive", "clip_30_40", "23.99"),  # Table 3, fourth segment
    ("astrolabe-4a", "Seq + Full BP", "memory", ">140"),  # Table 4a, first row
    ("astrolabe-4a", "Clip+Detach", "memory", "54.3"),  # Table 4a, last row
    ("astrolabe-4b", "No KL", "ta", "-0.068"),  # Table 4b, first row
    ("astrolabe-4c", "MQ + TA", "vb", "84.08"),  # Table 4c, right half, third row
    ("astrolabe-s1", "Advantage Clip Max", "value", "5.0"),  # Table S1
    ("delta-forcing-1", "SkyReels-V2", "ta", "-0.20"),  # Table 1, first row: the zero is printed
    ("delta-forcing-1", "Delta Forcing (Ours)", "videoalign", "7.55"),  # Table 1, last cell
    ("delta-forcing-2", "MemFlow", "dynamic_degree", "91.71"),  # Table 2, last column
    ("delta-forcing-3", "Delta Forcing (Ours)", "naturalness", "1.78"),  # Table 3, last row
    ("reward-forcing-1", "Pyramid Flow", "throughput", "6.7"),  # Table 1; Astrolabe prints 6.70
    ("reward-forcing-2", "LongLive", "drift", "2.531"),  # Table 2, drift
    ("reward-forcing-2", "Ours", "judge_text", "4.04"),  # Table 2, last cell
    ("reward-forcing-3", "β = 1/5", "dynamic_degree", "94.53"),  # Table 3, last row
    ("reward-forcing-4", "LongLive", "dynamics", "2.38310"),  # Table 4: five decimals
    ("reward-forcing-5", "max", "motion_smoothness", "0.9975"),  # Table 5, upper block
    ("reward-forcing-6", "Reward Forcing", "temporal_flickering", "98.97"),  # Table 6, last row
    ("reward-forcing-7", "CausVid", "human_action", "96.20"),  # Table 7, first row
    ("teleboost-1", "Overall", "margin", "32.71"),  # Table 1, last cell
    ("teleboost-2", "Simulation fluid effects", "f1_all", "10.040"),  # Table 2, last cell
    ("teleboost-3", "GRPO† (I2V)", "overall", "-1.8932"),  # Table 3, fifth row
    ("teleboost-4", "BPGO (only CRT)", "multiple_objects", "0.2485"),  # Table 4, third row, underlined
    ("teleboost-5", "Text Alignment", "same", "56"),  # Table 5, "Tied"
    ("teleboost-6", "VIPO", "spatial_relationship", "81.44"),  # Table 6, fifth row, last column
    ("teleboost-7", "ViPO", "mq", "1.1515"),  # Table 7; the text says 1.1505
    (
        "teleboost-8",
        "Self-paced Qwen2.5VL-72B (14B)",
        "aesthetic_quality",
        "60.68",
    ),  # Table 8, first row, last column: a misprint, kept
    ("teleboost-9", "Self-paced GRPO", "ta", "-0.7114"),  # Table 9, last row
]
# Models that the papers compare with and that are neither trained nor imported here.
BASELINES = {
    "ltx_video",
    "skyreels_v2",
    "magi_1",
    "nova",
    "pyramid_flow",
    "causvid",
    "framepack",
    "rolling_forcing",
    "wan2.2_i2v_14b",
}


OURS = {("teleboost-2", "Base, simulation")}  # rows that the paper does not print


def test_every_table_is_there_and_complete() -> None:
    found = {table_id: load_table(table_id) for table_id in list_tables()}
    assert {table_id: (len(table.rows), len(table.columns)) for table_id, table in found.items()} == SHAPES
    for table in found.values():
        for row in table.rows:
            unprinted = table.id in FIGURES or (table.id, row.label) in OURS
            keys = [] if unprinted else [column.key for column in table.columns]
            assert list(row.published) == keys, f"{table.id}: {row.label}"


@pytest.mark.parametrize(("table_id", "row", "column", "printed"), CELLS)
def test_cells_as_printed(table_id: str, row: str, column: str, printed: str) -> None:
    assert str(load_table(table_id).row(row).published[column]) == printed


def test_reading_order() -> None:
    assert list_tables() == list(SHAPES)


def test_sources_name_paper_and_number() -> None:
    for table_id in list_tables():
        table = load_table(table_id)
        assert "arXiv 2" in table.source, table_id
        assert FIGURES.get(table_id, f"Table {table_id.rpartition('-')[2][0].upper()}") in table.source, table_id


def made() -> set[str]:
    """Arms that can be made here: a recipe trains them, or the zoo imports them."""
    return {path.stem for path in list_recipes()} | {entry.name for entry in ENTRIES}


def planned() -> set[str]:
    """Arms whose recipes are still to come, by the papers' own lists."""
    return {
        f"{stem}{suffix}"
        for paper in list_papers()
        for stem in load_claims(paper).planned
        for suffix in ARM_SUFFIX.values()
    }


def test_every_row_of_a_table_names_an_arm_that_exists() -> None:
    """On each backbone: a recipe, perhaps with a size behind it, a release of the zoo, a recipe to come, or a model of
    others that is marked so. A row without an arm is only as published."""
    known, to_come, external = made(), planned(), set()
    for table_id in list_tables():
        for row in load_table(table_id).rows:
            unknown = [arm for arm in row.arm.values() if arm.partition("@")[0] not in known | to_come]
            assert unknown == ([row.arm["wan"]] if row.external else []), f"{table_id}: {row.label}: {row.arm}"
            external |= set(unknown)
    assert external == BASELINES


def test_every_side_of_a_claim_names_an_arm_that_exists() -> None:
    """On both backbones: a side that nobody can train or fetch would say `not run` for ever."""
    known, to_come, count = made(), planned(), 0
    for paper in list_papers():
        loaded = load_claims(paper)
        for claim in loaded.claims:
            for side in [side for part in claim.parts for side in sides_of(part)]:
                count += 1
                for backbone in BACKBONES:
                    arm = f"{claim.stem(side, backbone)}{ARM_SUFFIX[backbone]}"
                    assert arm in known | to_come, f"{claim.id}: {side} on {backbone}: {arm}"
    assert count > 100


def test_what_is_to_come_is_not_there_yet_and_is_waited_for() -> None:
    """A recipe that has come leaves its paper's list, and the list names nothing that no claim or table asks for."""
    known = made()
    for paper in list_papers():
        loaded = load_claims(paper)
        compared = {
            claim.stem(side, b)
            for claim in loaded.claims
            for part in claim.parts
            for side in sides_of(part)
            for b in BACKBONES
        }
        compared |= {arm for table_id in select(paper) for row in load_table(table_id).rows for arm in row.arm.values()}
        assert [
            stem for stem in loaded.planned if {f"{stem}{suffix}" for suffix in ARM_SUFFIX.values()} <= known
        ] == [], paper
        assert [stem for stem in loaded.planned if stem not in compared] == [], paper
    assert load_claims("astrolabe").planned == []


def test_margins_factors_and_bounds_that_no_paper_gives_say_so() -> None:
    """No paper gives a margin. Bounds of theirs are 0 and 1: no growth, no change, quotas of one device."""
    for claim in [claim for paper in list_papers() for claim in load_claims(paper).claims]:
        for part in claim.parts:
            if isinstance(part, Compare):
                assert part.ours or not (part.margin or part.margin_share or part.factor), claim.id
            if isinstance(part, Bound):
                assert part.ours or (part.value in (0, 1) and not part.margin), claim.id


def sides_of(part: Part) -> list[str]:
    match part:
        case Compare() | Most():
            return [part.a, *part.b]
        case Trend():
            return part.order
        case Bound():
            return [part.a]
        case Published():
            return []


def test_every_row_of_a_table_that_wan_can_fill_has_an_arm_there() -> None:
    for table_id in list_tables():
        table = load_table(table_id)
        filled = any(column.wan is not None for column in table.columns)
        assert [row.label for row in table.rows if ("wan" in row.arm) != filled] == [], table_id


def arms_on_wan() -> dict[str, set[str]]:
    """The arms of a method by its label, in which papers differ in hyphens, blanks and capitals."""
    names: dict[str, set[str]] = {}
    for table_id in list_tables():
        for row in load_table(table_id).rows:
            if "wan" in row.arm:
                names.setdefault(row.label.replace("-", " ").casefold(), set()).add(row.arm["wan"])
    return names


def test_a_method_has_one_arm_on_wan() -> None:
    """TeleBoost calls two sizes by one label."""
    assert {label: arms for label, arms in arms_on_wan().items() if len(arms) > 1} == {
        "wan2.1": {"wan_1.3b", "wan_14b"},
        "dancegrpo": {"grpo", "grpo_14b"},
    }


def test_an_arm_on_wan_is_a_name_that_users_can_give() -> None:
    for arm in set().union(*arms_on_wan().values()):
        assert re.fullmatch(r"[a-z0-9]+([._][a-z0-9]+)*", arm), arm
        assert checked_arm(arm) == arm


def test_a_released_base_has_one_name_on_wan() -> None:
    """The zoo's, so that records of `astro eval --name self_forcing` stand in its row of every table."""
    names = arms_on_wan()
    released = {"self forcing": "self_forcing", "longlive": "longlive", "causal forcing": "causal_forcing"}
    released |= {"reward forcing": "reward_forcing", "memflow": "memflow", "wan1.3b": "wan_1.3b", "wan14b": "wan_14b"}
    assert {label: names[label] for label in released} == {label: {name} for label, name in released.items()}
    assert set(released.values()) <= {entry.name for entry in ENTRIES}


def test_published_prompt_sets_are_sets_that_can_be_evaluated() -> None:
    """And only where a Wan column can be measured on one."""
    found: dict[str, set[str | None]] = {}
    for table_id in list_tables():
        table = load_table(table_id)
        found[table_id] = {table.prompt_set_of(column, "wan") for column in table.columns if column.wan is not None}
        assert not any(column.prompt_set and column.wan is None for column in table.columns), table_id
    names = {name for sets in found.values() for name in sets if name is not None}
    assert [name for name in names if name not in NAMES and not FIRST.match(name)] == []
    assert found["astrolabe-1"] == {"vbench-extended", "moviegen", None}  # Sec. 4.2; none for throughput
    assert found["reward-forcing-2"] == {"moviegen-128"}  # "the first 128 prompts from MovieGen"
    assert found["delta-forcing-2"] == {"interactive"}  # "the MemFlow benchmark, which contains 100 sequences"


def test_directions_of_costs() -> None:
    down = {
        (table_id, c.key) for table_id in list_tables() for c in load_table(table_id).columns if c.direction == "down"
    }
    assert down == {
        ("astrolabe-4a", "memory"),
        ("astrolabe-adaptive", "x0_norm_growth"),
        ("reward-forcing-2", "drift"),
        ("reward-forcing-3", "drift"),
        *(("teleboost-2", key) for key in ("epe", "over_1px", "over_3px", "f1_all")),
        *(("delta-forcing-3", key) for key in ("aesthetic", "dynamic", "naturalness", "average")),
    }


def test_printed_judge_scores() -> None:
    samples = load_table("reward-forcing-2").samples
    assert len(samples) == 15
    assert {len(each.scores) for each in samples} == {128}
    assert {score for each in samples for score in each.scores} == {1, 2, 3, 4, 5}
    text = next(each for each in samples if (each.row, each.column) == ("Ours", "judge_text"))
    assert text.scores[:10] == [5, 2, 4, 2, 5, 5, 5, 5, 3, 1]  # supplement S3, "Reward Forcing Full Results"


def test_printed_deltas() -> None:
    # Table 1, superscripts of the LongLive row
    assert load_table("astrolabe-1").row("+ Ours (LongLive)").delta["semantic"] == Decimal("-0.01")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aapt-1", ["aapt-1"]),
        ("delta-forcing", ["delta-forcing-1", "delta-forcing-2", "delta-forcing-3"]),
        (
            "ablations",
            [
                *(f"astrolabe-{part}" for part in ("4a", "4b", "4c", "adaptive", "beta")),
                "reward-forcing-3",
                "teleboost-4",
                "teleboost-9",
            ],
        ),
        ("all", list(SHAPES)),
    ],
)
def test_select(name: str, expected: list[str]) -> None:
    assert select(name) == expected


def test_unknown_name_has_the_nearest() -> None:
    with pytest.raises(RecordError, match="did you mean 'teleboost-8'"):
        select("telebost-8")


MINIMAL = """
id = "x-1"
title = "t"
source = "s"
columns = [{ key = "a", label = "A", direction = "up" }]
rows = [{ label = "r", published = { a = "OOM" } }]
"""


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('errata = [{ rows = ["q"], note = "n" }]', "no row 'q'"),
        ('errata = [{ columns = ["b"], note = "n" }]', "no column 'b'"),
        ('samples = [{ row = "r", column = "b", scores = "123" }]', "no column 'b'"),
        ('samples = [{ row = "r", column = "a", scores = "12x" }]', "scores"),
        ('checks = [{ formula = "guess", tolerance = 0 }]', "checks"),
        ('checks = [{ formula = "delta", tolerance = -1 }]', "tolerance"),
    ],
)
def test_wrong_toml_is_a_user_error(extra: str, message: str) -> None:
    assert parse_table(MINIMAL, "x-1.toml").row("r").published == {"a": "OOM"}
    with pytest.raises(RecordError) as caught:
        parse_table(MINIMAL + extra, "x-1.toml")
    assert message in str(caught.value)

"""The sections of `astro report`: what is measured comes first, nothing is lost behind folds, numbers in words are the
curve's and the records'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from astro_cli.config.errors import OutputError, RecordError
from eval.papers.claims import Verdict, list_papers, load_claims
from eval.papers.published import list_tables
from eval.papers.verdicts import evaluate
from eval.records.store import Record
from eval.renderers.claim_cards import claim_card, claim_cards, effect_plot
from eval.renderers.joined import join
from eval.renderers.measured import measured_table
from eval.report import clips as report_clips
from eval.report.clips import Take, clips_section
from eval.report.curves import Run, curves_section, read_run
from eval.report.figures import NO_BASE
from eval.report.page import Beside, Folded, Fragment, Heading, LineKey, Part, Section, Text, TextTable, VideoPlayer
from eval.report.protocol import protocol_section
from eval.report.sections import check_out, everything, figures_section, shown_records, write_page
from eval.report.tables import claim_counts, tables_section, verdicts_section
from tests import claim_records

PROMPTS = 8


def record(arm: str, metric: str, value: float, **changes: object) -> Record:
    fields = {
        "recipe_hash": "r" * 16,
        "weights_hash": "w" * 16,
        "prompt_set_hash": "p" * 16,
        "protocol": {
            "num_frames": 9,
            "fps": 8.0,
            "resolution": [32, 48],
            "prompts": PROMPTS,
            "device": "cpu",
            "versions": {"torch": "2.13.0"},
        },
        "commit": "abcdef0123456789",
        "created": "2026-01-02T00:00:00+00:00",
    }
    scores = [value + i / 128 for i in range(PROMPTS)]  # exact in binary: differences have no rounding noise
    return claim_records.record(arm, metric, scores, **(fields | changes))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Self-Forcing before and after RL: VQ rises by 0.25, MQ falls by 0.25."""
    pairs = {"self_forcing_shapes": (0.5, 0.5), "astrolabe_self_forcing_shapes": (0.75, 0.25)}
    return [
        record(arm, metric, value)
        for arm, values in pairs.items()
        for metric, value in zip(("vq", "mq"), values, strict=True)
    ]


def fragments(section: Section) -> list[Fragment]:
    return [part for part in section.parts if isinstance(part, Fragment)]


def folded(section: Section) -> list[Folded]:
    return [part for part in section.parts if isinstance(part, Folded)]


# --- tables and claims


def html_of(parts: Sequence[Part]) -> str:
    return "\n".join(part.html for part in parts if isinstance(part, Fragment))


def papers(records: list[Record]) -> dict[str, list[Verdict]]:
    return {name: evaluate(load_claims(name), records) for name in list_papers()}


def test_measured_rows_come_first_and_no_table_is_lost(records: list[Record]) -> None:
    section = tables_section(join(list_tables(), records))
    headings = [part.anchor for part in section.parts if isinstance(part, Heading)]
    assert headings[0] == "table-astrolabe-1"
    assert "table-teleboost-5" not in headings
    whole = [html_of(fold.parts) for fold in folded(section)]
    assert all(any(f'id="{table}"' in text for text in whole) for table in list_tables())
    assert section.parts[:3] == [
        Heading("Quantitative results on VBench benchmarks", "table-astrolabe-1"),
        fragments(section)[0],
        folded(section)[0],
    ]
    assert isinstance(section.parts[-1], Folded)


def test_a_measured_table_has_base_tuned_and_their_difference(records: list[Record]) -> None:
    (item,) = join(["astrolabe-1"], records)
    table = measured_table(item.view, item.differences)
    assert [(line.label, line.is_difference) for line in table.lines] == [
        ("Self-Forcing", False),
        ("+ Ours (Self-Forcing)", False),
        ("minus Self-Forcing", True),
    ]
    assert [head.split()[0] for head in table.heads] == ["HPSv3", "MQ"]
    assert table.seeds == "1 seed"
    tuned, difference = table.lines[1].cells[0], table.lines[2].cells[0]
    assert tuned.text.startswith(".777 ± ")  # 0.75 + 3.5/128
    assert (difference.text, difference.note) == ("+.250", "published +1.36")
    assert (difference.verdict, table.lines[2].cells[1].verdict) == ("agrees", "disagrees")


def test_without_a_measured_cell_the_page_says_so() -> None:
    section = tables_section(join(["teleboost-5"], []))
    assert section.parts[0] == Text("No table has a measured cell on this backbone.")


def test_claims_show_every_part_with_means_effect_verdict_seeds_and_backbone(records: list[Record]) -> None:
    section = verdicts_section(papers(records))
    judged = html_of(section.parts)
    card = judged[judged.index('id="claim-as-gain-sf"') :].split("</article>")[0]
    assert '<p class="verdict fails">fails (1 seed)</p>' in card  # MQ fell, and a claim fails where any part does
    assert '<b>VQ</b> <span class="means">.527 → .777</span>' in card
    assert '<span class="effect">+.250</span>' in card
    assert '<span class="verdict holds">holds</span>' in card
    assert "1 seed, shapes" in card
    waiting = "\n".join(html_of(fold.parts) for fold in folded(section))
    assert 'id="claim-as-gain-ll"' in waiting
    assert 'id="claim-as-gain-ll"' not in judged


def test_undecided_claims_are_open_where_nothing_was_decided(records: list[Record]) -> None:
    (claim,) = [each for each in papers(records)["astrolabe"] if each.id == "as-gain-sf"]
    undecided = [claim.model_copy(update={"verdict": "undecided", "id": f"c{number}"}) for number in range(6)]
    alone = verdicts_section({"astrolabe": undecided})
    assert 'id="claim-c5"' in html_of(alone.parts)
    beside = verdicts_section({"astrolabe": [claim, *undecided]})
    assert 'id="claim-c5"' not in html_of(beside.parts)
    assert folded(beside)[0].summary.startswith("6 undecided")


def test_claim_texts_are_escaped() -> None:
    waiting = claim_records.verdict(claim_records.compare(">"), [])
    card = claim_cards([waiting.model_copy(update={"id": 'x"', "source": "<i>", "text": "a < b"})])
    assert 'id="claim-x&#34;"' in card
    assert "a &lt; b" in card
    assert "&lt;i&gt;" in card
    assert "not measured on shapes" in card


def test_plots_stand_at_no_effect_and_share_a_scale() -> None:
    records = claim_records.pair("vq", 1.0, 0.5) + claim_records.pair("mq", -2.0)
    parts = claim_records.verdict(claim_records.compare(">", metrics='"vq", "mq"'), records).parts
    vq, mq = (effect_plot(part, parts) for part in parts)
    assert vq is not None
    assert mq is not None
    assert (vq.high, mq.mean) == (94.0, 6.0)  # the farthest ends, 44 % from the middle at 50 %
    assert 50 < vq.low < vq.mean < vq.high
    bound = '{ kind = "bound", metrics = ["vq"], a = "base", relation = "<=", value = 3.5 }'
    (value,) = claim_records.verdict(bound, records).parts
    assert effect_plot(value, [value]).mean == 50.0  # 3.5 is the number the claim names
    card = claim_card(claim_records.verdict(claim_records.compare(">"), []))
    assert card.pairs[0][2][0].plot is None


def test_every_claim_is_counted_once(records: list[Record]) -> None:
    counts = claim_counts(papers(records))
    assert [word for word, _, _ in counts] == ["holds", "fails", "undecided", "not run"]
    assert sum(count for _, count, _ in counts) == 44
    assert counts[1][1] >= 1  # as-gain-sf fails


# --- protocol


def test_protocol_merges_seeds_and_keeps_what_differs() -> None:
    found = [
        record("a", "vq", 0.5),
        record("a", "vq", 0.5, seed=10, weights_hash="v" * 16, created="2026-01-03T00:00:00+00:00", dirty=True),
        record("a", "mq", 0.5, seed=2, protocol={"num_frames": 81, "versions": {"torch": "2.14.0"}, "norm": "z"}),
    ]
    conditions, arms, versions = (part for part in protocol_section(found).parts if isinstance(part, TextTable))
    assert [list(row) for row in conditions.rows] == [
        ["shapes", f"`{'p' * 16}`", None, "81 frames", "norm z", "2", "", 1],
        ["shapes", f"`{'p' * 16}`", PROMPTS, "9 frames, 8 fps, 32 × 48", "", "0, 10", "cpu", 1],
    ]
    (row,) = arms.rows
    assert row[2:5] == ["0, 2, 10", "`rrrrrrrr`", "0: `wwwwwwww`, 2: `wwwwwwww`, 10: `vvvvvvvv`"]
    assert row[5:] == ["`abcdef01`, `abcdef01` dirty", "2026-01-02 to 2026-01-03"]
    assert [list(row) for row in versions.rows] == [["torch", "2.13.0, 2.14.0"]]


# --- curves


def labels(section: Section) -> list[str]:
    """Of the keys of its charts."""
    return [line.label for part in section.parts if isinstance(part, LineKey) for line in part.lines]


def write_run(folder: Path, rows: list[dict], backbone: str = "shapes") -> Path:
    folder.mkdir(parents=True)
    recipe = {
        "name": "mine_shapes",
        "seed": 3,
        "backbone": backbone,
        "order": ["ode", "nft"],
        "stages": {"ode": {"steps": 9}, "nft": {"steps": 4}},
    }
    (folder / "resolved.json").write_text(json.dumps({"hash": "0123456789abcdef", "recipe": recipe}))
    (folder / "environment.json").write_text(json.dumps({"commit": None, "dirty": None}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def two_stages() -> list[dict]:
    ode = [{"stage": "ode", "step": step, "student/loss": 1.0 - step / 10} for step in range(4)]
    return ode + [{"stage": "nft", "step": step, "student/loss": 0.5, "reward/total": float(step)} for step in range(4)]


def test_curves_show_rewards_of_rl_and_losses_of_other_stages(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run-a", two_stages()), "shapes")
    section = curves_section([run, run], tmp_path)
    parts = section.parts
    assert parts[0] == Heading("Stage ode", "stage-ode")
    assert Heading("Stage nft", "stage-nft") in parts
    assert labels(section)[0] == "mine_shapes (2 seeds)"
    pictures = [picture for part in parts if isinstance(part, Beside) for picture in part.pictures]
    assert [picture.path.name for picture in pictures] == ["ode-student-loss.svg", "nft-reward-total.svg"]
    assert pictures[1].caption == f"Total reward (weighted sum); {NO_BASE}."  # not where it went: prompts differ
    gains = [{**row, "gain/total": row["step"]} for row in two_stages() if row["stage"] == "nft"]
    (beside,) = [
        part
        for part in curves_section([read_run(write_run(tmp_path / "run-b", gains), "shapes")], tmp_path).parts
        if isinstance(part, Beside)
    ]
    # four steps: the first two, 0 and 1, against the last two, 2 and 3
    title = "Total reward (weighted sum), tuned minus base on the training prompts"
    assert beside.pictures[0].caption == f"{title}. mine_shapes from 0.5 to 2.5."
    assert "<svg " in pictures[1].path.read_text(encoding="utf-8")


def test_curves_show_gains_over_the_base_where_they_are_logged(tmp_path: Path) -> None:
    rows = [row | {"gain/vq": 0.1} for row in two_stages() if row["stage"] == "nft"]
    run = read_run(write_run(tmp_path / "run-a", rows), "shapes")
    (beside,) = [part for part in curves_section([run], tmp_path).parts if isinstance(part, Beside)]
    assert [picture.path.name for picture in beside.pictures] == ["nft-gain-vq.svg"]


def test_the_protocol_lists_the_runs_of_the_curves(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run-a", two_stages()), "shapes")
    tables = [part for part in protocol_section([], [run]).parts if isinstance(part, TextTable)]
    (row,) = next(table for table in tables if table.caption == "Training runs").rows
    assert list(row) == ["run-a", "mine_shapes", 3, "`01234567`", "ode (4 of 9), nft (4 of 4)", "unknown"]


def test_runs_of_one_name_and_several_recipes_are_several_curves(tmp_path: Path) -> None:
    runs = []
    for number, (seed, steps) in enumerate(((0, 9), (1, 9), (0, 7))):
        folder = write_run(tmp_path / str(number) / "run", two_stages())
        resolved = json.loads((folder / "resolved.json").read_text())
        resolved["recipe"] |= {"seed": seed, "stages": {"ode": {"steps": steps}, "nft": {"steps": 4}}}
        (folder / "resolved.json").write_text(json.dumps(resolved | {"hash": f"{number}" * 16}))
        runs.append(read_run(folder, "shapes"))
    section = curves_section(runs, tmp_path)
    assert labels(section)[:2] == ["mine_shapes, 00000000 (2 seeds)", "mine_shapes, 22222222 (1 seed)"]


def test_a_stage_without_reward_or_loss_says_so(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run-a", [{"stage": "ode", "step": 0, "seconds": 1.0}]), "shapes")
    assert Text("This stage logs no reward and no loss.") in curves_section([run], tmp_path).parts


def test_wrong_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such folder"):
        read_run(tmp_path / "none", "shapes")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"no run folder: it has no resolved\.json"):
        read_run(tmp_path / "empty", "shapes")
    with pytest.raises(RecordError, match="a run on 'wan', this page shows 'shapes'"):
        read_run(write_run(tmp_path / "wan", two_stages(), "wan"), "shapes")
    with pytest.raises(RecordError, match="no step is logged yet"):
        read_run(write_run(tmp_path / "fresh", []), "shapes")
    (write_run(tmp_path / "torn", two_stages()) / "resolved.json").write_text('{"hash": ')
    with pytest.raises(RecordError, match=r"resolved\.json"):
        read_run(tmp_path / "torn", "shapes")


# --- clips


def take(frames: int = 9, size: int = 32) -> Take:
    clip = np.zeros((frames, size, size, 3), dtype=np.uint8)
    clip[:, :, : size // 2, 0] = 200
    return Take("a red square", 0, 8.0, {"base": clip, "tuned": clip[:, :, ::-1]})


def test_clips_stand_side_by_side_with_their_sheet(tmp_path: Path) -> None:
    text, video = clips_section([take()], tmp_path).parts
    assert isinstance(video, VideoPlayer)
    assert isinstance(text, Text)
    assert text.text.startswith("`base`, `tuned`: the same prompts and noise.")
    assert (video.alt, video.caption) == ("base beside tuned: a red square", "a red square (seed 0)")
    with av.open(str(video.path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 27  # 3 s of 8 fps, in whole repeats of 9 frames
    height, width, _ = frames[0].shape
    assert width == 2 * 256 + 12
    assert frames[0][height - 40, 20, 0] > 150  # base: red on the left
    assert frames[0][height - 40, 20 + 260, 0] < 60  # tuned: on the right
    assert [label for label, _ in video.strips] == ["base", "tuned"]
    with Image.open(video.strips[0][1]) as image:
        assert image.size == (9 * 100 - 4, 96)  # nine frames of 32 px, three times as large, 4 px apart
        assert image.mode == "RGBA"
        assert image.getpixel((97, 50)) == (0, 0, 0, 0)  # the gap shows the page


def test_large_and_long_clips_are_thinned_in_the_row_of_frames_only(tmp_path: Path) -> None:
    (_, video) = clips_section([take(frames=40, size=200)], tmp_path).parts
    assert isinstance(video, VideoPlayer)
    with av.open(str(video.path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 40
    assert frames[0].shape[1] == 2 * 200 + 12
    with Image.open(video.strips[1][1]) as image:
        assert image.width == 8 * 104 - 4  # every fifth of 40 frames, 100 pixels wide, 4 apart


def test_clips_beyond_the_limit_are_left_out_and_said(tmp_path: Path) -> None:
    text, *videos = clips_section([take(), take(), take()], tmp_path, limit=1).parts
    assert len(videos) == 1  # one is shown whatever its size
    assert isinstance(videos[0], VideoPlayer)
    assert isinstance(text, Text)
    assert "1 of 3 are shown" in text.text


def test_as_many_arms_as_there_are_letters(tmp_path: Path) -> None:
    clip = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    three = Take("p", 0, 8.0, dict.fromkeys(("x", "y", "z"), clip))
    text, video = clips_section([three], tmp_path).parts
    assert isinstance(text, Text)
    assert text.text.startswith("A: `x`, B: `y`, C: `z`: the same")
    assert isinstance(video, VideoPlayer)
    with av.open(str(video.path)) as container:
        assert container.streams.video[0].width == 3 * 256 + 2 * 12
    assert len(report_clips.LETTERS) == 26


def test_takes_of_a_group_stand_under_its_name(tmp_path: Path) -> None:
    takes = [replace(take(), group=group) for group in ("one", "one", "two")]
    parts = clips_section(takes, tmp_path).parts
    assert [part.text for part in parts if isinstance(part, Heading)] == ["one", "two"]
    assert isinstance(parts[1], Heading)


def test_charts_stand_open_and_contact_sheets_are_folded(tmp_path: Path) -> None:
    charts, sheets = figures_section([tmp_path / "figure_5.svg", tmp_path / "sheet_long.png"]).parts
    assert isinstance(charts, Beside)
    assert charts.pictures[0].caption == "Figure 5"
    assert isinstance(sheets, Folded)
    assert sheets.summary.startswith("1 contact sheets")


# --- page


def test_equal_input_is_an_equal_page(tmp_path: Path, records: list[Record]) -> None:
    run = read_run(write_run(tmp_path / "run-a", two_stages()), "shapes")
    pages = []
    for name in ("a", "b"):
        steps: list[str] = []
        write_page(tmp_path / f"{name}.html", everything(records, "shapes", [run], [take()]), steps.append)
        assert steps == ["clips", "curves", "verdicts and tables", "page"]
        pages.append((tmp_path / f"{name}.html").read_bytes())
    assert pages[0] == pages[1]
    text = pages[0].decode()
    order = [
        "Verdicts",
        "Clips",
        "Training curves",
        "Tables",
        "Protocol",
    ]
    places = [text.index(f"<h2>{heading}</h2>") for heading in order]
    assert places == sorted(places)
    ids = [piece.split('"')[0] for piece in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert {target.split('"')[0] for target in text.split('href="#')[1:]} <= set(ids)


def test_the_page_says_which_arms_were_trained_once(tmp_path: Path, records: list[Record]) -> None:
    seeds = [each.model_copy(update={"seed": seed}) for each in records for seed in (0, 1)]
    tuned = [
        each.model_copy(update={"weights_hash": f"w{each.seed}"}) if each.arm.startswith("astrolabe") else each
        for each in seeds
    ]
    write_page(tmp_path / "page.html", everything(tuned, "shapes", [], []), lambda part: None)
    verdicts = (tmp_path / "page.html").read_text().split("<h2>")[1]
    assert "One training seed: <code>self_forcing_shapes</code>. The same weights under every seed" in verdicts


def test_no_records_and_no_place_are_said_before_any_work(tmp_path: Path, records: list[Record]) -> None:
    with pytest.raises(RecordError, match="no records of backbone 'shapes'") as caught:
        shown_records([], "shapes", tmp_path)
    assert "astro eval" in caught.value.hint
    with pytest.raises(RecordError, match="no records of backbone 'wan'") as caught:
        shown_records(records, "wan", tmp_path)
    assert "--backbone shapes" in caught.value.hint
    with pytest.raises(OutputError, match="is a folder"):
        check_out(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        check_out(tmp_path / "file" / "report.html")
    check_out(tmp_path / "new" / "report.html")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_newer_record_replaces_an_older_one(records: list[Record]) -> None:
    newer = record("self_forcing_shapes", "vq", 0.9, created="2026-02-01T00:00:00+00:00")
    assert len(shown_records([*records, newer], "shapes", Path("results"))) == len(records)


def test_a_run_counts_its_stages() -> None:
    run = Run("r", {}, "h", {}, two_stages())
    assert run.stages == {"ode": 4, "nft": 4}
    assert len(run.stage("nft")) == 4

"""The sections of `astro report`: what is measured comes first, nothing is lost behind folds, numbers in words are the
curve's and the records'.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from astro_cli.config.errors import OutputError, RecordError
from eval.papers.claims import Verdict
from eval.papers.published import list_tables
from eval.records.store import Record
from eval.renderers.claim_list import claim_list
from eval.renderers.joined import join
from eval.report import clips as report_clips
from eval.report.clips import Take, clips_section
from eval.report.curves import Run, curves_section, read_run
from eval.report.page import Beside, Folded, Fragment, Section, Text, TextTable, VideoPlayer
from eval.report.protocol import protocol_section
from eval.report.sections import check_out, shown_records, write_page
from eval.report.tables import claims_section, summary_section, tables_section
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


def test_measured_tables_come_first_and_none_is_lost(records: list[Record]) -> None:
    section = tables_section(join(list_tables(), records))
    shown = [part.entry[0] for part in fragments(section) if part.entry]
    assert shown[0] == "astrolabe-1"
    assert "teleboost-5" not in shown
    hidden = [
        part.entry[0] for fold in folded(section) for part in fold.parts if isinstance(part, Fragment) and part.entry
    ]
    assert sorted(shown + hidden) == sorted(list_tables())
    assert isinstance(section.parts[0], Fragment)
    assert isinstance(section.parts[-1], Folded)
    assert "0.777 ±" in fragments(section)[0].html  # 0.75 + 3.5/128


def test_without_a_measured_cell_the_page_says_so() -> None:
    section = tables_section(join(["teleboost-5"], []))
    assert section.parts[0] == Text("No table has a measured cell on this backbone.")


def test_claims_show_verdict_effect_interval_seeds_and_backbone(records: list[Record]) -> None:
    section = claims_section(join(list_tables(), records))
    judged = "\n".join(part.html for part in fragments(section))
    entry = judged[judged.index('id="claim-as-gain-sf"') :].split("</ul>")[0]
    assert '<p class="verdict fails">fails (1 seed)</p>' in entry  # MQ fell, and a claim fails where any part does
    assert "1 of 2 parts hold, 1 seed, shapes" in entry
    assert "holds (1 seed): vq: astrolabe_self_forcing &gt; self_forcing: +0.250 [+0.250, +0.250]" in entry
    waiting = "\n".join(part.html for fold in folded(section) for part in fold.parts if isinstance(part, Fragment))
    assert 'id="claim-as-gain-ll"' in waiting
    assert 'id="claim-as-gain-ll"' not in judged


def test_claim_texts_are_escaped() -> None:
    verdict = Verdict(
        id='x"',
        source="<i>",
        verdict="not run",
        effect=None,
        effect_kind=None,
        low=None,
        high=None,
        n=0,
        backbone="shapes",
        text="a < b",
        tables=[],
        parts=[],
    )
    assert '<li id="claim-x&quot;">' in claim_list([verdict])
    assert "a &lt; b <small>(&lt;i&gt;, <code>x&quot;</code>)" in claim_list([verdict])
    assert "not measured on shapes" in claim_list([verdict])


def test_summary_counts(records: list[Record]) -> None:
    (grid,) = summary_section(join(list_tables(), records)).parts
    assert isinstance(grid, TextTable)
    (astrolabe,) = [row for row in grid.rows if row[0] == "Astrolabe"]
    assert str(astrolabe[1]).endswith(" of 9")
    assert sum(int(str(count)) for row in grid.rows for count in row[2:]) == 44  # every claim once
    assert int(str(astrolabe[3])) >= 1  # as-gain-sf fails


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
    grid, *parts = section.parts
    assert isinstance(grid, TextTable)
    assert list(grid.rows[0]) == ["run-a", "mine_shapes", 3, "`01234567`", "ode (4 of 9), nft (4 of 4)", "unknown"]
    headings = [part for part in parts if isinstance(part, Fragment)]
    assert [part.entry for part in headings] == [("stage-ode", "Stage ode"), ("stage-nft", "Stage nft")]
    assert "mine_shapes (2 seeds)" in headings[0].html
    pictures = [picture for part in parts if isinstance(part, Beside) for picture in part.pictures]
    assert [picture.path.name for picture in pictures] == ["ode-student-loss.png", "nft-reward-total.png"]
    # four steps: the first two, 0 and 1, against the last two, 2 and 3
    assert pictures[1].caption == "Total reward (weighted sum). mine_shapes from 0.5 to 2.5."
    assert pictures[1].alt == "Total reward (weighted sum) during training: mine_shapes from 0.5 to 2.5"
    with Image.open(pictures[1].path) as image:
        assert image.format == "PNG"


def test_runs_of_one_name_and_several_recipes_are_several_curves(tmp_path: Path) -> None:
    runs = []
    for number, (seed, steps) in enumerate(((0, 9), (1, 9), (0, 7))):
        folder = write_run(tmp_path / str(number) / "run", two_stages())
        resolved = json.loads((folder / "resolved.json").read_text())
        resolved["recipe"] |= {"seed": seed, "stages": {"ode": {"steps": steps}, "nft": {"steps": 4}}}
        (folder / "resolved.json").write_text(json.dumps(resolved | {"hash": f"{number}" * 16}))
        runs.append(read_run(folder, "shapes"))
    (heading, *_) = [part for part in curves_section(runs, tmp_path).parts if isinstance(part, Fragment)]
    assert "mine_shapes, 00000000 (2 seeds)" in heading.html
    assert "mine_shapes, 22222222 (1 seed)" in heading.html


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
    assert text.text.startswith("A: `base`, B: `tuned`.")
    assert (video.alt, video.caption) == ("base beside tuned: a red square", "a red square (seed 0)")
    with av.open(str(video.path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 27  # 3 s of 8 fps, in whole repeats of 9 frames
    height, width, _ = frames[0].shape
    assert width == 2 * 256 + 4
    assert frames[0][height - 40, 20, 0] > 150  # base: red on the left
    assert frames[0][height - 40, 20 + 260, 0] < 60  # tuned: on the right
    assert video.sheet is not None
    with Image.open(video.sheet) as image:
        assert image.width > 9 * 96


def test_large_and_long_clips_are_thinned_on_the_sheet_only(tmp_path: Path) -> None:
    (_, video) = clips_section([take(frames=40, size=200)], tmp_path).parts
    assert isinstance(video, VideoPlayer)
    assert video.sheet is not None
    with av.open(str(video.path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 40
    assert frames[0].shape[1] == 2 * 200 + 2
    with Image.open(video.sheet) as image:
        assert image.width == 2 * 10 + 8 * 103 - 3  # every fifth of 40 frames, 100 pixels wide, 3 apart


def test_clips_beyond_the_limit_are_left_out_and_said(tmp_path: Path) -> None:
    text, *videos = clips_section([take(), take(), take()], tmp_path, limit=1).parts
    assert len(videos) == 1  # one is shown whatever its size
    assert isinstance(text, Text)
    assert "1 of 3 are shown" in text.text


def test_as_many_arms_as_there_are_letters(tmp_path: Path) -> None:
    clip = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    three = Take("p", 0, 8.0, dict.fromkeys(("x", "y", "z"), clip))
    text, video = clips_section([three], tmp_path).parts
    assert isinstance(text, Text)
    assert text.text.startswith("A: `x`, B: `y`, C: `z`.")
    assert isinstance(video, VideoPlayer)
    with av.open(str(video.path)) as container:
        assert container.streams.video[0].width == 3 * 256 + 2 * 4
    assert len(report_clips.LETTERS) == 26


# --- page


def test_equal_input_is_an_equal_page(tmp_path: Path, records: list[Record]) -> None:
    run = read_run(write_run(tmp_path / "run-a", two_stages()), "shapes")
    pages = []
    for name in ("a", "b"):
        steps: list[str] = []
        write_page(tmp_path / f"{name}.html", records, "shapes", [run], [take()], steps.append)
        assert steps == ["tables and claims", "curves", "clips", "page"]
        pages.append((tmp_path / f"{name}.html").read_bytes())
    assert pages[0] == pages[1]
    text = pages[0].decode()
    order = [
        "Summary",
        "Tables, published and measured",
        "Claims",
        "Training curves",
        "Clips, side by side",
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
    write_page(tmp_path / "page.html", tuned, "shapes", [], [], lambda part: None)
    intro = (tmp_path / "page.html").read_text().split("<h2>")[0]
    assert "One training seed: <code>self_forcing_shapes</code>. The same weights under every seed" in intro


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

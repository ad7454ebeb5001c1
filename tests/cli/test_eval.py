"""`astro eval` on the command line: exit codes, what is printed, what is refused."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from astro_cli.__main__ import main
from astro_cli.generate.mp4 import write_mp4
from tests.small_videos import turn, write_container, write_video

FLICKER = "temporal-flickering"


@pytest.fixture
def astro_eval(astro):
    """Runs `astro eval ...` as `astro` does."""
    return partial(astro, "eval")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips under VBench's names."""
    made = tmp_path / "videos"
    made.mkdir()
    for number, name in enumerate(("a cat-0", "a dog-0")):
        frames = np.random.default_rng(number).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
        write_mp4(frames, made / f"{name}.mp4", 8)
    return made


def records(folder: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted((folder / "records").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_a_folder_is_scored_and_recorded(astro_eval, folder, tmp_path):
    code, out, err = astro_eval(FLICKER, str(folder), "--name", "mine", "--seed", "2")
    assert code == 0
    assert "temporal_flickering" in out
    assert "2/2" in out
    assert "records written: 1" in err
    (record,) = records(tmp_path / "results")
    assert (record["arm"], record["seed"], record["benchmark"], len(record["scores"])) == ("mine", 2, FLICKER, 2)
    assert record["protocol"]["resolution"] == [64, 48]
    assert {"decoder", "scorer", "versions", "device", "seeds"} <= record["protocol"].keys()


def test_missing_videos_exit_3_and_allow_partial_does_not(astro_eval, folder, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\na bird\n")
    code, out, _ = astro_eval(FLICKER, str(folder), "--name", "mine", "--prompts", str(prompts))
    assert code == 3
    assert "partial (2/3)" in out
    assert not (tmp_path / "results" / "records").exists()
    code, out, _ = astro_eval(FLICKER, str(folder), "--name", "mine", "--prompts", str(prompts), "--allow-partial")
    assert code == 0
    assert "temporal_flickering (partial)" in out


def test_another_protocol_exits_4(astro_eval, folder):
    assert astro_eval(FLICKER, str(folder), "--name", "mine")[0] == 0
    (folder / "a dog-0.mp4").unlink()
    code, _, err = astro_eval(FLICKER, str(folder), "--name", "mine")
    assert code == 4
    assert "prompts 2, now 1" in err
    assert "hint: " in err


def test_limit_says_that_tables_leave_it_out(astro_eval, folder):
    code, _, err = astro_eval(FLICKER, str(folder), "--name", "mine", "--limit", "1")
    assert code == 0
    assert "limited to 1 prompts" in err


def test_suites_whose_scorers_are_not_ready_say_what_is_missing(astro_eval, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))
    code, out, err = astro_eval("hpsv3", str(folder), "--name", "mine")
    assert (code, out) == (2, "")
    assert "hpsv3: not ready" in err
    assert str(tmp_path / "none") in err


def test_partial_suites_name_what_does_not_run(astro_eval, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))
    code, out, err = astro_eval("vbench-long-custom", str(folder), "--name", "mine")
    assert code == 3
    assert "not run: imaging_quality: needs" in err
    assert "partial (1/7)" in out  # the quality total


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("temporal-flicker", "videos", "--name", "a"), "did you mean 'temporal-flickering'"),
        ((FLICKER, "nowhere", "--name", "a"), "nowhere"),
        ((FLICKER, "videos", "--name", " "), "--name"),
        (("compare", "a", "b"), "no records in results"),
        (("ingest", "none.json", "--suite", "vbench", "--name", "a"), "cannot be read"),
        (("gsb", "none.csv"), "cannot be read"),
        (("likert", "none.csv", "--scale", "4-1"), "LOW-HIGH"),
        ((FLICKER, "videos", "--name", "a", "--prompts", "vbnch"), "vbench"),
        ((FLICKER, "videos", "--name", "a", "--set", "foo"), "hint: for example: --set temporal_flickering."),
        ((FLICKER, "videos", "--name", "a", *("--set", "temporal_flickering.static_filter=false") * 2), "is set twice"),
        (
            (FLICKER, "videos", "--name", "a", "--set", "temporal_flickering.static=false"),
            "did you mean 'static_filter'?",
        ),
    ],
)
def test_what_is_refused(arguments, says, astro_eval, folder, tmp_path):
    code, out, err = astro_eval(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert says in err
    assert out == ""
    assert not (tmp_path / "results").exists()


def test_a_truncated_video_is_named(astro_eval, folder):
    path = folder / "a cat-0.mp4"
    path.write_bytes(path.read_bytes()[:300])
    code, _, err = astro_eval(FLICKER, str(folder), "--name", "mine")
    assert code == 2
    assert "a cat-0.mp4" in err


@pytest.mark.parametrize("ending", [".webm", ".mkv", ".avi", ".gif", ".mov", ".mp4"])
def test_no_part_of_a_truncated_video_is_scored(ending, astro_eval, folder, tmp_path):
    path = write_container(folder / f"a bird-0{ending}")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 5])
    code, _, err = astro_eval(FLICKER, str(folder), "--name", "mine")
    assert code == 2
    assert f"a bird-0{ending}: " in err
    assert "ends early" in err or "cannot be decoded" in err
    assert not (tmp_path / "results").exists()


def test_both_decoders_score_a_phones_video_alike(astro_eval, folder, tmp_path):
    for path in folder.iterdir():
        path.unlink()
    turn(write_video(folder / "a bird-0.mp4", size=(192, 128)), (0, 1, -1, 0))
    found = {}
    for decoder in ("av", "decord") if find_spec("decord") else ("av",):
        results = tmp_path / decoder
        assert (
            astro_eval(FLICKER, str(folder), "--name", "mine", "--decoder", decoder, "--results", str(results))[0] == 0
        )
        (record,) = records(results)
        assert record["protocol"]["resolution"] == [128, 192]
        found[decoder] = record["scores"]
    assert len({str(scores) for scores in found.values()}) == 1


def test_an_empty_folder_is_named(astro_eval, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = astro_eval(FLICKER, "empty", "--name", "mine")
    assert code == 2
    assert "no videos" in err


def test_compare_prints_a_table_and_json(astro_eval, folder):
    for name in ("a", "b"):
        assert astro_eval(FLICKER, str(folder), "--name", name)[0] == 0
    code, out, _ = astro_eval("compare", "a", "b")
    assert code == 0
    assert "win rate" in out
    code, out, _ = astro_eval("compare", "a", "b", "--format", "json")
    (row,) = json.loads(out)["metrics"]
    assert (row["difference"], row["win_rate"], row["n"]) == (0.0, 0.5, 2)  # the same videos: all ties


def test_judgements_are_printed(astro_eval, tmp_path):
    (tmp_path / "g.csv").write_text("verdict\n" + "G\n" * 34 + "S\n" * 48 + "B\n" * 18)
    code, out, _ = astro_eval("gsb", "g.csv")
    assert code == 0
    assert "65.4%" in out
    assert "58.0%" in out
    (row,) = json.loads(astro_eval("gsb", "g.csv", "--format", "json")[1])
    assert (row["good"], row["margin"]) == (34, 0.16)
    (tmp_path / "l.csv").write_text("criterion,score\nmotion,4\nmotion,2\n")
    found = json.loads(astro_eval("likert", "l.csv", "--scale", "1-4", "--format", "json")[1])
    assert [(row["mean"], row["n"], row["share"]) for row in found["arms"]] == [(3.0, 2, 0.5)]
    assert found["pairs"] == []


def test_ratings_of_two_arms_are_compared(astro_eval, tmp_path):
    rows = "".join(f"{arm},motion,v{item},{score}\n" for arm, score in (("ours", 4), ("base", 3)) for item in range(5))
    (tmp_path / "l.csv").write_text("arm,criterion,item,score\n" + rows)
    code, out, _ = astro_eval("likert", "l.csv", "--scale", "1-4", "--threshold", "4")
    assert code == 0
    assert "4 or more" in out
    assert "0.0625" in out  # 2 / 2^5
    (pair,) = json.loads(astro_eval("likert", "l.csv", "--scale", "1-4", "--format", "json")[1])["pairs"]
    assert (pair["arm"], pair["other"], pair["wins"], pair["p"]) == ("ours", "base", 5, 0.0625)
    code, _, err = astro_eval("likert", "l.csv", "--scale", "1-4", "--threshold", "5")
    assert (code, "--threshold: 5" in err) == (2, True)


@pytest.mark.parametrize("name", ["[/red]", "[bold]", ":cat:"])
def test_names_are_printed_as_they_are(name, astro_eval, folder, tmp_path):
    (tmp_path / "g.csv").write_text(f"criterion,verdict\n{name},G\n")
    assert name in astro_eval("gsb", "g.csv")[1]
    rows = "".join(f"{arm},{name},v1,{score}\n" for arm, score in ((name, 4), ("base", 3)))
    (tmp_path / "l.csv").write_text("arm,criterion,item,score\n" + rows)
    assert (
        astro_eval("likert", "l.csv")[1].count(name) == 5
    )  # arm and criterion: two rows of one table, one of the other
    for arm in (name, "base"):
        assert astro_eval(FLICKER, str(folder), "--name", arm)[0] == 0
    assert name in astro_eval("compare", name, "base")[1]


def test_file_names_are_printed_as_they_are(astro_eval, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a [red]cat:dog:-0.mp4").write_bytes(b"no video")
    assert "[red]cat:dog:" in astro_eval("check", "videos")[1]


def test_throughput_comes_from_sidecars(astro_eval, folder, tmp_path):
    code, _, err = astro_eval("throughput", str(folder), "--name", "mine")
    assert code == 3
    assert "not stated beside the video" in err
    for name in ("a cat-0", "a dog-0"):
        facts = {
            "video": f"{name}.mp4",
            "prompt": name[:5],
            "seed": 0,
            "frames": 4,
            "fps": 8,
            "switches": [],
            "frames_per_second": 17.5,
        } | ({"loop_frames_per_second": 21.0, "attention": "flash", "window_full": True} if name == "a cat-0" else {})
        (folder / f"{name}.json").write_text(json.dumps(facts))
    code, out, _ = astro_eval("throughput", str(folder), "--name", "mine")
    assert code == 0
    assert "17.5" in out
    found = {record["metric"]: record["scores"] for record in records(tmp_path / "results")}
    # With decoding, and of the loop alone, which older sidecars do not say.
    assert found == {"throughput": [17.5, 17.5], "loop_throughput": [21.0, None]}


def test_the_group_lists_suites(astro_eval):
    code, out, _ = astro_eval("--help")
    assert code == 0
    assert all(name in out for name in ("shapes", "vbench-long", "compare", "ingest", "check"))
    assert "--arm" in astro_eval("shapes", "--help")[1]
    assert "--seed-from" in astro_eval("vbench", "--help")[1]


def test_official_results_reach_the_table(astro_eval, tmp_path, capsys):
    """VBench's own file with all sixteen dimensions on its real prompts; values of Reward Forcing, Tables 6 and 7, Self
    Forcing.
    """
    pytest.importorskip("vbench")
    from eval.papers.published import load_table, numbers
    from eval.prompt_sets.catalog import prompt_set

    published = {
        column.key: float(value)
        for table in map(load_table, ("reward-forcing-6", "reward-forcing-7"))
        for column in table.columns
        for row, value in numbers(table, column.key)
        if row.label == "Self Forcing"
    }
    results: dict[str, list] = {}
    for prompt in prompt_set("vbench").prompts:
        for name in prompt.labels["dimension"]:
            score = published[name] / (1 if name == "imaging_quality" else 100)
            videos = results.setdefault(name, [published[name] / 100, []])[1]
            videos += [{"video_path": f"/data/{prompt.text}-{index}.mp4", "video_results": score} for index in range(5)]
    (tmp_path / "x_eval_results.json").write_text(json.dumps(results))
    code, _, err = astro_eval("ingest", "x_eval_results.json", "--suite", "vbench", "--name", "astrolabe_causal")
    assert (code, err) == (0, "")
    totals = {
        record["metric"]: float(np.nanmean(np.array(record["scores"], dtype=float)))
        for record in records(tmp_path / "results")
    }
    assert totals["total"] == pytest.approx(83.80, abs=0.01)
    assert totals["quality"] == pytest.approx(84.59, abs=0.01)
    sys.argv = ["astro", "table", "astrolabe-1", "--backbone", "wan"]
    with pytest.raises(SystemExit):
        main()
    row = next(line for line in capsys.readouterr().out.splitlines() if "+ Ours (Causal Forcing)" in line)
    assert "83.795 " in row  # (4 x 84.5858 + 80.6338) / 5 = 83.7954
    assert "84.586 " in row

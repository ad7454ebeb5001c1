"""A paper's figures from run folders and records: which runs are drawn, what is said to be missing, and the command
around it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astro_cli.config.errors import RecordError
from eval.records import store
from eval.report import arm_panels, differences_figure, paper_figures
from eval.report.paper_figures import Made, Missing, find_runs, pictures
from tests import claim_records
from tests.command_line import run

PAIRS = (("shapes/self_forcing", "astrolabe_self_forcing_shapes"), ("shapes/longlive", "astrolabe_longlive_shapes"))
EPOCHS = 4
KEYS = ("gain/vq", "gain/mq", "gain/ta", "gain/total")


def make_run(runs: Path, name: str, keys: tuple[str, ...] = KEYS, *, finished: bool = True) -> None:
    folder = runs / name
    folder.mkdir(parents=True)
    rows = [
        {"stage": "nft", "step": step, "student/x0_norm": 1.0, **dict.fromkeys(keys, step / 10)}
        for step in range(EPOCHS)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (folder / "final").mkdir()
        (folder / "final" / "card.json").write_text("{}")


def record(benchmark: str, arm: str, metric: str, seed: int, scores: list[float | None]) -> store.Record:
    protocol = {"num_frames": 240, "prompts": len(scores)}
    return claim_records.record(arm, metric, scores, seed, benchmark=benchmark, protocol=protocol)


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Arguments of the curves that are drawn."""
    calls: list[tuple] = []
    monkeypatch.setattr(arm_panels, "arm_panels", lambda *arguments: calls.append(arguments))
    return calls


@pytest.fixture
def differences(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Arguments of the differences that are drawn."""
    calls: list[tuple] = []
    monkeypatch.setattr(differences_figure, "paired_differences", lambda *arguments: calls.append(arguments))
    return calls


def picture(name: str, runs: Path, records: list[store.Record] | None = None) -> paper_figures.PaperFigure:
    made = Made(runs, records or [], Path("results"))
    return {each.name: each for each in pictures("astrolabe", PAIRS, made)}[name]


def ablate(grid: str, runs: Path) -> str:
    return f"astro ablate {grid} --seeds 0,1,2 --runs {runs} --results results"


def test_runs_are_found_by_seed_and_unfinished_ones_apart(tmp_path: Path) -> None:
    for seed in (10, 2, 0):
        make_run(tmp_path, f"astrolabe_vq_shapes-seed{seed}")
    make_run(tmp_path, "astrolabe_vq_shapes-seed3", finished=False)
    make_run(tmp_path, "astrolabe_vq_shapes-seed0-old")
    finished, started = find_runs(tmp_path, "astrolabe_vq_shapes")
    assert [path.name.rpartition("seed")[2] for path in finished] == ["0", "2", "10"]
    assert [path.name for path in started] == ["astrolabe_vq_shapes-seed3"]


def test_what_is_there_is_drawn_and_what_is_not_is_said(tmp_path: Path, curves: list[tuple]) -> None:
    make_run(tmp_path, "astrolabe_vq_shapes-seed0")
    make_run(tmp_path, "astrolabe_all_shapes-seed0")
    make_run(tmp_path, "astrolabe_all_shapes-seed1", finished=False)
    drawn = picture("figure_7a_rewards.png", tmp_path).draw(tmp_path / "7a.png")
    assert drawn.written
    command = ablate("astrolabe-4c", tmp_path)
    assert drawn.missing == [
        Missing("training curves of", "astrolabe_mq_shapes", command),
        Missing("the end of", "astrolabe_all_shapes-seed1", command),
    ]
    (arms, _, keys, ends) = curves[0]
    assert {label: len(seeds) for label, seeds in arms.items()} == {"VQ only": 1, "MQ only": 0, "VQ + MQ + TA": 1}
    assert keys == ("gain/vq", "gain/mq")
    assert ends == {}


def test_a_curve_stands_beside_the_difference_of_the_tables(tmp_path: Path, curves: list[tuple]) -> None:
    make_run(tmp_path, "astrolabe_beta_low_shapes-seed0")
    records = [record("shapes", "causal_forcing_shapes", "vq", 0, [0.1, 0.3])]
    records.append(record("shapes", "astrolabe_beta_low_shapes", "vq", 0, [0.3, 0.3]))
    picture("figure_7b_beta.png", tmp_path, records).draw(tmp_path / "7b.png")
    (_, _, _, ends) = curves[0]
    assert list(ends) == [("beta 0.1", "gain/vq")]
    assert ends["beta 0.1", "gain/vq"].mean == pytest.approx(0.1)  # (.2 + 0) / 2


def test_older_runs_show_their_rewards_and_why(tmp_path: Path, curves: list[tuple]) -> None:
    make_run(tmp_path, "astrolabe_all_shapes-seed0", ("reward/vq", "reward/mq"))
    drawn = picture("figure_7b_beta.png", tmp_path).draw(tmp_path / "7b.png")
    assert curves[0][2] == ("reward/vq", "reward/mq")
    assert any(lack.what == paper_figures.NO_GAIN for lack in drawn.missing)


def test_curves_come_from_records_where_no_run_is_here(tmp_path: Path, curves: list[tuple]) -> None:
    records = [record("shapes", "astrolabe_longlive_shapes", "gain/vq", seed, [0.0, 0.1, 0.2]) for seed in (0, 1)]
    drawn = picture("figure_5_longlive.png", tmp_path, records).draw(tmp_path / "5.png")
    (arms, *_) = curves[0]
    assert [[row["gain/vq"] for row in rows] for rows in arms["RL on LongLive"]] == [[0.0, 0.1, 0.2]] * 2
    assert drawn == (True, [])


def test_without_curves_the_ends_are_shown_and_the_note_says_so(tmp_path: Path, differences: list[tuple]) -> None:
    arms = {"causal_forcing_shapes": [0.2, 0.4], "astrolabe_vq_shapes": [0.3, 0.7], "astrolabe_all_shapes": [0.2, 0.4]}
    records = [record("shapes", arm, "vq", seed, list(scores)) for arm, scores in arms.items() for seed in (0, 1)]
    drawn = picture("figure_7a_rewards.png", tmp_path, records).draw(tmp_path / "7a.png")
    assert drawn.written
    ((visual, motion), _, note) = differences[0]
    assert visual.rows["VQ only"].mean == pytest.approx(0.2)  # (.1 + .3) / 2
    assert visual.rows["VQ only"].base == pytest.approx(0.3)
    assert visual.rows["MQ only"] is None
    assert not any(motion.rows.values())
    assert note.startswith("No training curve of these runs is kept.")
    assert "2 seeds" in note


def test_measures_of_the_runs_themselves_have_no_base(tmp_path: Path, differences: list[tuple]) -> None:
    records = [
        record("shapes", "astrolabe_x0_shapes", "x0_norm_growth", seed, [value])
        for seed, value in enumerate((0.8, 1.0))
    ]
    picture("figure_8b_adaptive.png", tmp_path, records).draw(tmp_path / "8b.png")
    ((_, norm), _, note) = differences[0]
    assert norm.reference == 1
    assert norm.rows["without"].mean == pytest.approx(0.9)
    assert norm.rows["without"].base is None
    assert "what the runs measured of themselves" in note


def test_a_figure_without_a_run_and_a_record_is_not_drawn(tmp_path: Path, curves: list[tuple]) -> None:
    drawn = picture("figure_5_longlive.png", tmp_path).draw(tmp_path / "5.png")
    command = ablate("astrolabe-bases", tmp_path)
    assert drawn == (False, [Missing("training curves of", "astrolabe_longlive_shapes", command)])
    assert not curves
    assert not (tmp_path / "5.png").exists()


def test_differences_of_a_suite_are_paired_with_their_interval(tmp_path: Path, differences: list[tuple]) -> None:
    arm = "astrolabe_self_forcing_shapes"
    records = [record("shapes-long", arm, "vq_last_third", seed, [0.2, 0.4, None]) for seed in (0, 1)]
    alone = picture("differences_long_self_forcing.png", tmp_path, records).draw(tmp_path / "d.png")
    command = ablate("astrolabe-bases", tmp_path)
    assert alone == (False, [Missing("records on shapes-long of", "self_forcing_shapes", command)])
    records += [record("shapes-long", "self_forcing_shapes", "vq_last_third", seed, [0.1, 0.1, 0.1]) for seed in (0, 1)]
    records.append(record("shapes", arm, "vq_last_third", 0, [0.9, 0.9, 0.9]))  # of another benchmark
    assert picture("differences_long_self_forcing.png", tmp_path, records).draw(tmp_path / "d.png") == (True, [])
    ((panel,), *_) = differences[0]
    mean, low, high, base = panel.rows["VQ last third"]
    assert (mean, base) == pytest.approx((0.2, 0.1))  # (.1 + .3) / 2 over a base of .1
    # the seeds agree; two prompts, s = .1414: 12.7062 x .1414 / sqrt 2
    assert (low, high) == pytest.approx((0.2 - 1.27062, 0.2 + 1.27062), abs=1e-4)
    assert panel.rows["MQ"] is None


def test_no_figures_of_other_papers(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no figures of this paper"):
        pictures("wan", PAIRS, Made(tmp_path, [], tmp_path))


def test_the_command_draws_and_lists_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    runs, results, out = tmp_path / "runs", tmp_path / "results", tmp_path / "out"
    results.mkdir()
    make_run(runs, "astrolabe_all_shapes-seed0")
    make_run(runs, "astrolabe_self_forcing_shapes-seed0")
    arguments = [
        "figures",
        "astrolabe",
        "--runs",
        str(runs),
        "--results",
        str(results),
        "--out",
        str(out),
        "--no-sheets",
    ]
    assert run(arguments, monkeypatch) == 0
    err = capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == {
        "figure_5_self_forcing.png",
        "figure_7a_rewards.png",
        "figure_7b_beta.png",
        "figure_8a_kl.png",
    }
    assert "4 of 16 pictures" in err  # 3 bases x (1 figure and 3 of differences) and 4 ablations
    (curves,) = [line for line in err.splitlines() if line.startswith("missing: training curves of")]
    assert curves.count("astrolabe_mq_shapes") == 1
    commands = [line.strip() for line in err.splitlines() if line.startswith("  astro ablate")]
    assert f"astro ablate astrolabe-4c --seeds 0,1,2 --runs {runs} --results {results}" in commands
    assert len(commands) == len(set(commands)) == 5  # a line per grid, to be pasted


def test_nothing_to_draw_is_an_error_that_names_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "runs").mkdir()
    arguments = ["figures", "astrolabe", "--results", str(tmp_path), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--runs", str(tmp_path / "runs")], monkeypatch) == 2
    err = capsys.readouterr().err
    assert "no picture can be drawn" in err
    assert "hint: to make it: astro ablate astrolabe-bases --seeds 0,1,2 --runs" in err
    assert run([*arguments, "--runs", str(tmp_path / "none")], monkeypatch) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

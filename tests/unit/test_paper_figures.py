"""A paper's figures from run folders and records: which runs are drawn, what is said to be missing, and the command
around it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astro_cli.config.errors import RecordError
from eval.records import store
from eval.report import figures, paper_figures
from eval.report.paper_figures import find_runs, pictures
from tests import claim_records
from tests.command_line import run

PAIRS = (("shapes/self_forcing", "astrolabe_self_forcing_shapes"), ("shapes/longlive", "astrolabe_longlive_shapes"))
EPOCHS = 4
BASE = [
    {"stage": "nft", "step": step, "reward/vq": 0.5, "reward/mq": 0.4, "reward/ta": 0.3, "reward/total": 1.2}
    for step in range(EPOCHS)
]


def make_run(
    runs: Path, name: str, keys: tuple[str, ...] = ("vq", "mq", "ta", "total"), *, finished: bool = True
) -> None:
    folder = runs / name
    folder.mkdir(parents=True)
    rows = [
        {"stage": "nft", "step": step, "student/x0_norm": 1.0, **{f"reward/{key}": step / 10 for key in keys}}
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
    """Arguments of the curves that are drawn, without measuring a base."""
    calls: list[tuple] = []
    monkeypatch.setattr(paper_figures, "_base_curve", lambda recipe, seed, epochs: BASE[:epochs])
    monkeypatch.setattr(figures, "reward_curves", lambda *arguments: calls.append(arguments))
    return calls


def picture(name: str, runs: Path, records: list[store.Record] | None = None) -> paper_figures.PaperFigure:
    planned = {picture.name: picture for picture in pictures("astrolabe", PAIRS, runs, records or [])}
    return planned[name]


def test_runs_are_found_by_seed_and_unfinished_ones_apart(tmp_path: Path) -> None:
    for seed in (10, 2, 0):
        make_run(tmp_path, f"astrolabe_vq_shapes-seed{seed}")
    make_run(tmp_path, "astrolabe_vq_shapes-seed3", finished=False)
    make_run(tmp_path, "astrolabe_vq_shapes-seed0-old")
    finished, started = find_runs(tmp_path, "astrolabe_vq_shapes")
    assert [path.name.rpartition("seed")[2] for path in finished] == ["0", "2", "10"]
    assert [path.name for path in started] == ["astrolabe_vq_shapes-seed3"]


def test_what_is_there_is_drawn_and_what_is_not_is_said(tmp_path: Path, curves: list[tuple]) -> None:
    make_run(tmp_path, "astrolabe_vq_shapes-seed0", ("vq", "total"))
    make_run(tmp_path, "astrolabe_all_shapes-seed0")
    make_run(tmp_path, "astrolabe_all_shapes-seed1", finished=False)
    drawn = picture("figure_7a_rewards.png", tmp_path).draw(tmp_path / "7a.png")
    assert drawn.written
    assert drawn.missing == [
        "astrolabe_vq_shapes-seed0 logs no reward/mq",
        "astrolabe_mq_shapes-seed* (astro ablate astrolabe-4c)",
        "astrolabe_all_shapes-seed1 is not finished",
    ]
    (arms, _, keys, window, base) = curves[0]
    assert {label: len(seeds) for label, seeds in arms.items()} == {"VQ only": 1, "MQ only": 0, "VQ + MQ + TA": 1}
    assert keys == ("reward/vq", "reward/mq")
    assert window == paper_figures.WINDOW
    assert base == [BASE[:EPOCHS]]


def test_without_its_standard_run_a_figure_has_no_base_curve(tmp_path: Path, curves: list[tuple]) -> None:
    make_run(tmp_path, "astrolabe_x0_shapes-seed0")
    drawn = picture("figure_8b_adaptive.png", tmp_path).draw(tmp_path / "8b.png")
    assert drawn.written
    assert "the base's curve: astrolabe_all_shapes-seed* (astro rl --recipe astrolabe_all_shapes)" in drawn.missing
    assert curves[0][4] == []


def test_the_base_curve_is_of_the_runs_own_recipe_and_as_long_as_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple] = []
    monkeypatch.setattr(figures, "reward_curves", lambda *arguments: None)
    monkeypatch.setattr(paper_figures, "_base_curve", lambda run, seed, epochs: calls.append((run.name, seed, epochs)))
    make_run(tmp_path, "astrolabe_all_shapes-seed0")
    make_run(tmp_path, "astrolabe_beta_low_shapes-seed0")
    log = tmp_path / "astrolabe_beta_low_shapes-seed0" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    picture("figure_7b_beta.png", tmp_path).draw(tmp_path / "7b.png")
    assert calls == [("astrolabe_all_shapes-seed0", 0, EPOCHS)]


def test_a_figure_without_a_run_is_not_drawn(tmp_path: Path, curves: list[tuple]) -> None:
    drawn = picture("figure_5_longlive.png", tmp_path).draw(tmp_path / "5.png")
    assert drawn == (False, ["astrolabe_longlive_shapes-seed* (astro rl --recipe astrolabe_longlive_shapes)"])
    assert not curves
    assert not (tmp_path / "5.png").exists()


def test_bars_are_means_over_seeds_with_their_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict] = []
    monkeypatch.setattr(figures, "attribute_bars", lambda measured, path: seen.append(measured))
    arm = "astrolabe_self_forcing_shapes"
    records = [record("shapes-long", arm, "vq_last_third", seed, [0.2, 0.4, None]) for seed in (0, 1)]
    records.append(record("shapes", arm, "vq_last_third", 0, [0.9, 0.9, 0.9]))  # of another benchmark
    drawn = picture("bars_long_self_forcing.png", tmp_path, records).draw(tmp_path / "bars.png")
    assert drawn.written
    assert drawn.missing == ["records of self_forcing_shapes on shapes-long (astro eval shapes-long --arm ...)"]
    mean, low, high = seen[0]["tuned"]["vq_last_third"]
    assert mean == pytest.approx(0.3)  # (.2 + .4) / 2, at both seeds
    assert low == pytest.approx(
        0.3 - 1.27062, abs=1e-4
    )  # the seeds agree; two prompts, s = .1414: 12.7062 x .1414 / sqrt 2
    assert high == pytest.approx(0.3 + 1.27062, abs=1e-4)
    assert seen[0]["tuned"]["mq"] is None
    assert not any(seen[0]["base"].values())


def test_no_figures_of_other_papers(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no figures of this paper"):
        pictures("teleboost", PAIRS, tmp_path, [])


def test_the_command_draws_and_lists_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(paper_figures, "_base_curve", lambda recipe, seed, epochs: BASE[:epochs])
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
    assert "4 of 16 pictures" in err  # 3 bases x (1 figure and 3 bars) and 4 ablations
    assert "missing: astrolabe_mq_shapes-seed* (astro ablate astrolabe-4c): figure_7a_rewards.png" in err


def test_nothing_to_draw_is_an_error_that_names_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "runs").mkdir()
    arguments = ["figures", "astrolabe", "--results", str(tmp_path), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--runs", str(tmp_path / "runs")], monkeypatch) == 2
    err = capsys.readouterr().err
    assert "no picture can be drawn" in err
    assert "astrolabe_causal_shapes-seed*" in err
    assert run([*arguments, "--runs", str(tmp_path / "none")], monkeypatch) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

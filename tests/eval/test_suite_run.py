"""`astro eval SUITE DIR` below the command line: decoded once, resumed, complete or partial, recorded under a
protocol.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from astro_cli.__main__ import app
from astro_cli.config.errors import CheckpointError, IntegrityError, RecordError
from eval.records import store
from eval.records.video_scores import SampleStore
from eval.scoring import pool
from eval.scoring import run as suite_run
from eval.scoring.run import Progress, Request, evaluate
from eval.scoring.totals import TOTALS, Total
from tests.small_videos import write_video

BOTH = 'scorers = [{ scorer = "temporal_flickering", scale = 100 }, { scorer = "brightness" }]'
PROMPTS = ("a cat", "a dog", "a bird", "a fish")


def run(folder: Path, results: Path, **changes: object) -> suite_run.Report:
    return evaluate(
        Request(**{"suite": "test", "folder": folder, "arm": "arm", "results": results} | changes), Progress()
    )  # pyright: ignore[reportArgumentType]


def records(results: Path) -> dict[str, store.Record]:
    return {record.metric: record for record in store.latest(store.load_results(results))}


def test_every_video_is_decoded_once_for_all_scorers(fake, suite_of, folder_of, tmp_path, monkeypatch):
    suite_of(BOTH)
    decoded = []
    real = suite_run.frames
    monkeypatch.setattr(suite_run, "frames", lambda path, backend: decoded.append(path.name) or real(path, backend))
    report = run(folder_of("videos", PROMPTS), tmp_path / "r")
    assert report.complete
    assert sorted(decoded) == [f"{number:03d}-0.mp4" for number in range(4)]
    assert fake.seen[:5] == [("000-0.mp4", index) for index in range(5)]
    found = records(tmp_path / "r")
    assert found.keys() == {"temporal_flickering", "brightness"}
    assert 90 < np.mean(found["temporal_flickering"].scores) < 100  # the fraction x 100
    assert found["brightness"].backbone == "wan"


def test_videos_unlike_each_other_or_the_published_run_are_named_before_scoring(fake, suite_of, folder_of, tmp_path):
    suite_of('protocol = { fps = 8, seconds = 60 }\nscorers = [{ scorer = "brightness" }]')
    folder = folder_of("videos", PROMPTS)
    write_video(folder / "003-0.mp4", frames=7, size=(64, 48), fps=8)
    events = []
    request = Request("test", folder, "arm", tmp_path / "r")
    assert evaluate(
        request,
        Progress(
            begin=lambda total: events.append("begin"), warn=lambda found: events.append((found.key, found.items))
        ),
    ).complete
    names = tuple(f"{number:03d}-0.mp4" for number in range(4))
    assert events == [("frames", ("003-0.mp4",)), ("seconds", names), "begin"]
    protocol = records(tmp_path / "r")["brightness"].protocol
    assert (protocol["unlike_published"], protocol["published_protocol"]) == (["seconds"], {"fps": 8, "seconds": 60})


def test_the_command_prints_warnings_with_hints_and_percent(folder_of, tmp_path):
    folder = folder_of("videos", PROMPTS[:3])
    write_video(folder / "002-0.mp4", frames=7, size=(64, 48), fps=8)
    command = ["eval", "temporal-flickering", str(folder), "--name", "a", "--results", str(tmp_path / "r")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "warning: 002-0.mp4: frames: 7, most videos have 5\nhint: scores of videos" in done.stderr
    assert "percent" in done.stdout
    assert "x 100" not in done.stdout


def test_a_pool_of_samples_is_not_replaced_by_one_sample(fake, suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "brightness" }]')
    folder = folder_of("videos", PROMPTS[:2], seeds=(0, 1))
    run(folder, tmp_path / "r")
    with pytest.raises(IntegrityError, match="samples_per_prompt 2, now 1"):
        run(folder, tmp_path / "r", seed=None)


@pytest.mark.parametrize("place", ["r", "r/records", "r/samples"])
def test_results_that_are_a_file_are_refused_before_the_folder_is_read(place, tmp_path):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    with pytest.raises(RecordError, match=f"{place} is a file") as caught:
        evaluate(Request("temporal-flickering", tmp_path / "gone", "a", tmp_path / "r"), Progress())
    assert caught.value.where == "--results"


def test_grayscale_and_norm_are_conditions_with_names(tmp_path):
    from eval.scoring.outcome_writer import _scorer_protocol
    from eval.scoring.scorers import configured_scorers
    from eval.suites.suite import load_suite

    colour, gray = configured_scorers(load_suite("videoalign"))
    found = [
        _scorer_protocol(configured, info)
        for configured in (colour, gray)
        for info in configured.metrics.values()
        if info.id in ("videoalign.mq", "videoalign.mq_raw")
    ]
    conditions = [(each["grayscale"], each["norm"], each["positions"]) for each in found]
    assert conditions == [(gray, norm, "official") for gray in (False, True) for norm in ("checkpoint", "none")]
    assert {"grayscale", "norm", "positions"} <= set(store.CONDITION_KEYS)


def test_a_second_run_scores_nothing_and_writes_nothing(fake, suite_of, folder_of, tmp_path):
    suite_of(BOTH)
    folder = folder_of("videos", PROMPTS)
    assert run(folder, tmp_path / "r").scored == 8
    seen = len(fake.seen)
    again = run(folder, tmp_path / "r")
    assert (again.scored, again.reused, again.seeds[0].written) == (0, 8, [])
    assert len(fake.seen) == seen
    assert len(store.load_results(tmp_path / "r")) == 2


def test_another_config_or_prompt_or_video_is_scored_anew(fake, suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "brightness" }]')
    folder = folder_of("videos", PROMPTS)
    base = records_mean(run(folder, tmp_path / "r"))
    doubled = run(folder, tmp_path / "r", arm="other", overrides=("brightness.gain=2.0",))
    assert doubled.scored == 4
    assert records_mean(doubled) == pytest.approx(2 * base)
    manifest = folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("a cat", "a lion"))
    assert run(folder, tmp_path / "r", arm="third").scored == 1


@pytest.fixture
def summed(monkeypatch):
    """A total of the two scorers: flicker as a fraction plus a hundredth of the brightness."""
    both = Total(
        ("temporal_flickering", "brightness"), lambda m: m["temporal_flickering"] + m["brightness"] / 100, "sum"
    )
    monkeypatch.setitem(TOTALS, "both", both)


def test_metrics_one_after_another_give_the_total(fake, suite_of, folder_of, tmp_path, summed):
    suite_of('totals = { sum = "both" }\n' + BOTH)
    folder = folder_of("videos", PROMPTS)
    whole = run(folder, tmp_path / "r", arm="whole")
    assert whole.seeds[0].totals[0].complete
    first = run(folder, tmp_path / "r", metrics=("brightness",))
    assert first.seeds[0].totals == []  # and no partial one is shown
    last = run(folder, tmp_path / "r", metrics=("temporal_flickering",))
    assert [total.coverage for total in last.seeds[0].totals] == ["2/2"]
    assert "sum" in last.seeds[0].written
    ours, theirs = (
        next(r for r in store.load_results(tmp_path / "r") if (r.arm, r.metric) == (arm, "sum"))
        for arm in ("arm", "whole")
    )
    assert ours.scores == theirs.scores
    assert ours.conditions == theirs.conditions
    assert run(folder, tmp_path / "r").seeds[0].written == []


def test_records_of_other_videos_complete_no_total(fake, suite_of, folder_of, tmp_path, summed):
    suite_of('totals = { sum = "both" }\n' + BOTH)
    folder = folder_of("videos", PROMPTS)
    run(folder, tmp_path / "r", metrics=("brightness",))
    write_video(folder / "003-0.mp4", seed=99, size=(64, 48))
    assert run(folder, tmp_path / "r", metrics=("temporal_flickering",)).seeds[0].totals == []


def test_other_videos_under_one_name_are_said(fake, suite_of, folder_of, tmp_path, capsys):
    suite_of(BOTH)
    folder = folder_of("videos", PROMPTS)
    run(folder, tmp_path / "r")
    run(folder, tmp_path / "r")
    assert "warning" not in capsys.readouterr().err
    write_video(folder / "003-0.mp4", seed=99, size=(64, 48))
    run(folder, tmp_path / "r")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert "test.jsonl: arm, seed 0: was recorded of videos " in lines[0]


def records_mean(report: suite_run.Report) -> float:
    mean = report.seeds[0].outcomes[0].mean
    assert mean is not None
    return mean


def test_a_killed_evaluation_goes_on_where_it_stopped(fake, suite_of, folder_of, tmp_path, monkeypatch):
    suite_of('scorers = [{ scorer = "brightness" }]')
    folder, results = folder_of("videos", PROMPTS), tmp_path / "r"
    real = pool.run

    def killed(*arguments):
        for number, scored in enumerate(real(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield scored

    monkeypatch.setattr(pool, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, results)
    path = results / "samples" / "test" / "brightness.jsonl"
    with path.open("ab") as file:
        file.write(b'{"schema_version": 1, "video": "002')  # what a kill leaves behind
    monkeypatch.setattr(pool, "run", real)
    assert run(folder, results).scored == 2
    assert len(path.read_text().splitlines()) == 4
    assert records(results)["brightness"].scores == records_of_fresh(folder, tmp_path)


def records_of_fresh(folder: Path, tmp_path: Path) -> list[float | None]:
    run(folder, tmp_path / "fresh")
    return records(tmp_path / "fresh")["brightness"].scores


def test_kill_9_loses_no_finished_video(folder_of, tmp_path):
    folder, results = folder_of("videos", [f"prompt {number}" for number in range(30)]), tmp_path / "r"
    command = [
        sys.executable,
        "-m",
        "astro_cli",
        "eval",
        "temporal-flickering",
        str(folder),
        "--name",
        "a",
        "--results",
        str(results),
    ]
    lines = results / "samples" / "temporal-flickering" / "temporal_flickering.jsonl"
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 60
    while (
        time.monotonic() < deadline
        and process.poll() is None
        and not (lines.is_file() and lines.read_bytes().count(b"\n") >= 3)
    ):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.wait()
    kept = SampleStore(results, "temporal-flickering")
    kept.load(["temporal_flickering"])
    before = lines.read_bytes().count(b"\n")
    assert before >= 3
    report = evaluate(Request("temporal-flickering", folder, "a", results), Progress())
    assert (report.scored, report.reused) == (30 - before, before)
    assert report.complete


def test_nan_and_failures_make_a_metric_partial_and_leave_the_others(fake, suite_of, folder_of, tmp_path):
    suite_of(BOTH)
    fake.bad |= {"001-0.mp4": float("nan"), "002-0.mp4": "see"}
    report = run(folder_of("videos", PROMPTS), tmp_path / "r")
    flicker, brightness = report.seeds[0].outcomes
    assert not report.complete
    assert (flicker.coverage, brightness.coverage) == ("4/4", "2/4")
    assert brightness.scores is None
    assert {(failure.video, failure.what) for failure in report.failures} == {
        ("001-0.mp4", "brightness: found nan, scores are finite"),
        ("002-0.mp4", "frames: cannot go on"),
    }
    assert records(tmp_path / "r").keys() == {"temporal_flickering"}
    assert "nan" not in (tmp_path / "r" / "samples" / "test" / "brightness.jsonl").read_text().lower()
    fake.bad.clear()
    assert run(tmp_path / "videos", tmp_path / "r").scored == 2  # failures are tried again, nothing else


def test_scores_are_means_over_samples_in_the_order_of_prompts(fake, suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "brightness" }]')
    fake.bad |= {"000-0.mp4": 1.0, "000-1.mp4": 3.0, "001-0.mp4": 10.0, "001-1.mp4": 20.0}
    folder = folder_of("videos", PROMPTS[:2], seeds=(0, 1))
    run(folder, tmp_path / "r")
    assert records(tmp_path / "r")["brightness"].scores == [2.0, 15.0]  # (1 + 3) / 2, (10 + 20) / 2
    run(folder, tmp_path / "by_seed", seed=None)
    kept = {record.seed: record.scores for record in store.load_results(tmp_path / "by_seed")}
    assert kept == {0: [1.0, 10.0], 1: [3.0, 20.0]}


def test_missing_videos_of_a_prompt_set_are_counted(fake, suite_of, folder_of, tmp_path):
    suite_of('samples = 2\nscorers = [{ scorer = "brightness" }]')
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\na bird\n")
    folder = tmp_path / "named"
    made = folder_of("videos", PROMPTS[:2], seeds=(0, 1))
    made.rename(folder)
    (folder / "manifest.jsonl").unlink()
    for number, prompt in enumerate(PROMPTS[:2]):
        for seed in (0, 1):
            (folder / f"{number:03d}-{seed}.mp4").rename(folder / f"{prompt}-{seed}.mp4")
    report = run(folder, tmp_path / "r", prompts=str(prompts))
    assert report.seeds[0].outcomes[0].coverage == "4/6"
    assert not store.load_results(tmp_path / "r")


def test_a_limited_evaluation_is_stamped_and_no_table_sees_it(fake, suite_of, folder_of, tmp_path):
    from eval.records.comparable import Cells

    suite_of('scorers = [{ scorer = "brightness" }]')
    folder, results = folder_of("videos", PROMPTS), tmp_path / "r"
    run(folder, results)
    whole = records(results)["brightness"]
    report = run(folder, results, limit=2)
    assert report.order.limit == 2
    limited = store.load_results(results)[-1]
    assert (limited.protocol["limit"], limited.limit, len(limited.scores)) == (2, 2, 2)
    shown = Cells(store.load_results(results), "wan").find("arm", "brightness", "test")
    assert shown == {0: whole}  # though the limited one is newer


def test_an_arm_is_not_continued_under_another_protocol(fake, suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "brightness" }]')
    results = tmp_path / "r"
    run(folder_of("videos", PROMPTS), results)
    with pytest.raises(IntegrityError, match=r"prompts 4, now 3") as caught:
        run(folder_of("others", PROMPTS[:3]), results)
    assert caught.value.exit_code == 4
    with pytest.raises(IntegrityError, match="scorer brightness-"):
        run(tmp_path / "videos", results, overrides=("brightness.gain=3.0",))


def test_two_processes_find_what_one_finds(folder_of, tmp_path):
    folder = folder_of("videos", PROMPTS)
    for name, jobs in (("one", 1), ("two", 2)):
        report = evaluate(Request("temporal-flickering", folder, "a", tmp_path / name, jobs=jobs), Progress())
        assert report.complete
    one, two = (store.load_results(tmp_path / name)[0] for name in ("one", "two"))
    assert one.scores == two.scores


def test_both_decoders_find_the_same(folder_of, tmp_path):
    pytest.importorskip("decord")
    folder = folder_of("videos", PROMPTS[:2])
    scores = []
    for decoder in ("av", "decord"):
        evaluate(Request("temporal-flickering", folder, "a", tmp_path / decoder, decoder=decoder), Progress())
        found = store.load_results(tmp_path / decoder)[0]
        assert found.protocol["decoder"].startswith(decoder)
        scores.append(found.scores)
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metrics": ("brightnes",)}, "did you mean 'brightness'"),
        ({"overrides": ("brightness.gian=1",)}, "did you mean 'gain'"),
        ({"overrides": ("brightness.gain=bright",)}, "brightness.gain"),
        ({"overrides": ("gain=1",)}, "SCORER.KEY=VALUE"),
        ({"metrics": ("subject",)}, "not ready"),
        ({"seed": None, "folder": "named"}, "seed"),
    ],
)
def test_what_is_refused(changes, says, fake, suite_of, folder_of, tmp_path, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "nothing"))
    suite_of('scorers = [{ scorer = "brightness" }, { scorer = "subject_consistency", name = "subject" }]')
    folder = folder_of("videos", PROMPTS[:1])
    if "folder" in changes:
        (folder / "manifest.jsonl").unlink()
        changes = changes | {"folder": folder}
    with pytest.raises(RecordError) as caught:
        run(changes.pop("folder", folder), tmp_path / "r", **changes)
    assert says in str(caught.value)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_wrong_checkpoint_is_named_before_anything_is_scored(jobs, suite_of, folder_of, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyiqa")
    suite_of('scorers = [{ scorer = "imaging_quality" }]')
    path = tmp_path / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth"
    path.parent.mkdir()
    torch.save({"weight": torch.zeros(2, 3)}, path)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        run(folder_of("videos", PROMPTS[:2]), tmp_path / "r", jobs=jobs)
    assert path.name in str(caught.value)
    assert caught.value.hint  # survives the way from another process
    assert not (tmp_path / "r").exists()


def named(tmp_path: Path, folder_of, *names: str) -> Path:
    """A folder of files of these names, every video its own, without a manifest."""
    folder = folder_of("named", [f"prompt {number}" for number in range(len(names))])
    (folder / "manifest.jsonl").unlink()
    for number, name in enumerate(names):
        (folder / f"{number:03d}-0.mp4").rename(folder / f"{name}.mp4")
    return folder


def listed(tmp_path: Path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n")
    return str(path)


@pytest.mark.parametrize("candidates", ["", ", candidates = 6"])
def test_indices_that_are_missing_are_not_made_up_by_others(candidates, fake, suite_of, folder_of, tmp_path):
    suite_of(f'samples = 3\nscorers = [{{ scorer = "brightness"{candidates} }}]')
    folder = named(tmp_path, folder_of, "a cat-0", "a cat-4", "a cat-5", "a cat-9")
    report = run(folder, tmp_path / "r", prompts=listed(tmp_path))
    assert report.seeds[0].outcomes[0].coverage == "1/3"
    (folder / "a cat-4.mp4").rename(folder / "a cat-1.mp4")
    (folder / "a cat-5.mp4").rename(folder / "a cat-2.mp4")
    report = run(folder, tmp_path / "r", prompts=listed(tmp_path))
    assert report.seeds[0].outcomes[0].coverage == "3/3"


def test_no_index_that_counts(fake, suite_of, folder_of, tmp_path):
    suite_of('samples = 2\nscorers = [{ scorer = "brightness" }]')
    with pytest.raises(RecordError, match="an index that counts"):
        run(named(tmp_path, folder_of, "a cat-2", "a cat-7"), tmp_path / "r", prompts=listed(tmp_path))


def test_a_video_without_an_index_fills_a_gap() -> None:
    from eval.scoring.outcomes import _counting

    rows = [(None, 9.0), (0, 1.0), (2, None), (3, 4.0), (6, 5.0)]
    assert _counting(rows, 3, choose=True) == [
        1.0,
        4.0,
        9.0,
    ]  # one gap before 2 and 3, three before 6; 2 does not apply
    assert _counting(rows, 3, choose=False) == [9.0, 1.0, None]


def test_failures_are_no_scores(fake, suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "brightness" }]')
    fake.bad |= {f"{number:03d}-0.mp4": "see" for number in range(3)}
    report = run(folder_of("videos", PROMPTS), tmp_path / "r")
    assert (report.scored, report.reused, len(report.failures)) == (1, 0, 3)


def test_limit_keeps_the_folders_first_prompts(fake, suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "brightness" }]')
    folder = folder_of("videos", PROMPTS)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(reversed(manifest.read_text().splitlines(keepends=True))))
    run(folder, tmp_path / "r", limit=2)
    assert {name for name, _ in fake.seen} == {"003-0.mp4", "002-0.mp4"}


def test_one_seed_twice_is_refused_where_seeds_are_kept_apart(fake, suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "brightness" }]')
    folder = folder_of("videos", PROMPTS[:1], seeds=(1, 2))
    manifest = folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"seed": 2', '"seed": 1'))
    assert run(folder, tmp_path / "r").complete
    with pytest.raises(RecordError, match="seed: 1 is also that of another video"):
        run(folder, tmp_path / "by_seed", seed=None)


def test_equal_videos_of_a_prompt_are_planned_once(fake, suite_of, folder_of, tmp_path):
    from eval.inputs import load
    from eval.scoring.scorers import configured_scorers
    from eval.scoring.worker import plan

    suite = suite_of('scorers = [{ scorer = "brightness" }]')
    sample = load(folder_of("videos", PROMPTS[:1]))[0]
    works = plan(
        [sample, sample],
        configured_scorers(suite),
        SampleStore(tmp_path / "r", "test"),
        lambda sample, configured: True,
    )
    assert [work.scorers for work in works] == [("brightness",)]


def test_an_empty_name_is_refused_before_the_folder_is_read(tmp_path):
    with pytest.raises(RecordError, match="--name"):
        evaluate(Request("temporal-flickering", tmp_path / "gone", " ", tmp_path / "r"), Progress())

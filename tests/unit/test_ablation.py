"""A grid's plan: what of it is done, as far as its folders say."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest

from astro_cli.config.errors import AstroError
from astro_cli.config.seeds import parse_seeds
from astro_cli.core import processes
from astro_cli.training.rundir import RunDir
from eval.papers.ablation import list_grids, load_grid, merge, plan
from eval.studies import grid_run


def states(runs) -> dict[str, str]:
    return {job.label: job.state for job in plan(load_grid("astrolabe-beta"), [0], runs, [], None)}


def test_a_damaged_folder_does_not_stop_the_plan(tmp_path):
    jobs = plan(load_grid("astrolabe-beta"), [0], tmp_path, [], None)
    first, other = jobs[0], jobs[1]
    run = RunDir(tmp_path / f"{first.recipe.name}-seed0")
    run.open(first.recipe, "", resume=False, device="cpu")
    assert states(tmp_path) == {first.label: "started", other.label: "new"}
    run.final.mkdir()
    (run.final / "card.json").write_text("{}")
    assert states(tmp_path)[first.label] == "finished"
    resolved = json.loads((run.path / "resolved.json").read_text())
    resolved["inputs"]["base.student"] = "0" * 16  # what the base was
    (run.path / "resolved.json").write_text(json.dumps(resolved))
    assert states(tmp_path)[first.label] == "changed"
    (run.path / "resolved.json").write_text("x")
    assert states(tmp_path) == {first.label: "damaged", other.label: "new"}


def test_each_seed_is_given_once():
    assert parse_seeds("2,0,1") == [2, 0, 1]
    with pytest.raises(AstroError, match=r"0,1,0.*a seed twice"):
        parse_seeds("0,1,0")


def test_grids_share_their_rows_and_join_their_suites(tmp_path):
    plans = {
        name: plan(load_grid(name), [1, 0], tmp_path, [], None)
        for name in ("astrolabe-4b", "astrolabe-4c", "astrolabe-4a")
    }
    merged = merge(list(plans.values()))
    names = [job.name for job in merged]
    assert (
        len(names) == len(set(names)) == sum(map(len, plans.values())) - 2
    )  # both have the whole method, at two seeds
    assert [job.seed for job in merged] == sorted(job.seed for job in merged)
    longer = [replace(job, suites=("shapes-long",)) for job in plans["astrolabe-4c"]]
    both = merge([plans["astrolabe-4c"], longer])
    assert all(job.suites == ("shapes", "shapes-long") for job in both)


def test_every_grid_names_recipes_and_suites_that_exist(tmp_path):
    from eval.world.suites import WORLD_SUITES, at

    for name in list_grids():
        suites = dict.fromkeys(load_grid(name).suites)
        assert {at(suite)[0] for suite in suites} <= WORLD_SUITES.keys()
        assert all(WORLD_SUITES[at(suite)[0]].sized for suite in suites if at(suite)[1] is not None)
        assert plan(load_grid(name), [0], tmp_path, [], None)


def test_a_failure_stops_no_other_job_and_a_termination_stops_all(tmp_path, monkeypatch):
    """Processes that would sleep for a minute are gone at once, and jobs that were waiting never start."""
    jobs = plan(load_grid("astrolabe-4c"), [0], tmp_path / "runs", [], None)[1:5]
    run = grid_run.GridRun(tmp_path / "results", tmp_path / "logs")

    def training(job):
        if job.label == "VQ only":
            raise OSError(28, "No space left on device")
        return []

    monkeypatch.setattr(run, "_training", training)
    monkeypatch.setattr(processes.sys, "executable", str(_sleeper(tmp_path)))

    def terminate():
        while len(run.running) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run.run(jobs, 2, lambda *_: None)
    assert time.monotonic() - began < 50
    assert not run.running
    assert sorted(path.name for path in (tmp_path / "logs").glob("*.log")) == [
        "astrolabe_mq_shapes-seed-0.log",
        "astrolabe_ta_shapes-seed-0.log",
    ]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _sleeper(folder):
    path = folder / "sleeper"
    path.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    path.chmod(0o755)
    return path


def test_a_row_starts_from_the_student_of_the_row_before(tmp_path):
    base, first, second, third = plan(load_grid("teleboost-stages"), [3], tmp_path, [], 2)
    assert (base.arm, first.after, first.sets) == ("shapes/teacher", None, ())
    assert (second.after, third.after) == (first.name, second.name)
    assert second.recipe.base.student == first.arm == str(tmp_path / "sft_geometry_shapes-seed3")
    assert third.recipe.base.student == second.arm
    assert all(job.recipe.stages[job.recipe.order[-1]].steps == 2 for job in (first, second, third))
    run = grid_run.GridRun(tmp_path, tmp_path / "logs", steps=2)
    arguments = run._training(third)
    assert (arguments[0], arguments[-3:]) == ("prefer", ["base.student=" + second.arm, "--steps", "2"])


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_it_waits_for_that_row_and_fails_with_it(jobs, fails, tmp_path, monkeypatch):
    planned = plan(load_grid("teleboost-stages"), [0, 1], tmp_path, [], None)
    run, worked = grid_run.GridRun(tmp_path, tmp_path / "logs"), []

    def work(job):
        time.sleep(0.02 if job.after else 0.1)
        worked.append(job.name)
        return "exit code 1" if fails and job.name == "staged_grpo_shapes seed 0" else ""

    monkeypatch.setattr(run, "_work", work)
    failed = {job.name: why for job, why in run.run(planned, jobs, lambda *_: None)}
    for job in planned:
        if job.after and job.name in worked:
            assert worked.index(job.after) < worked.index(job.name)
    assert failed == (
        {}
        if not fails
        else {
            "staged_grpo_shapes seed 0": "exit code 1",
            "staged_dpo_shapes seed 0": "not begun: it starts from staged_grpo_shapes seed 0, which failed",
        }
    )
    assert len(worked) == len(planned) - fails

"""How many threads: the rule by hand, what the user says before it, shares of processes side by side, and that
everything which computes asks.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from astro_cli.config.errors import RunError
from astro_cli.core import processes, threads
from astro_cli.generate.arm import load_arm
from astro_cli.models.wan.config import WanConfig
from astro_cli.recipe import load_recipe
from astro_cli.training import run as training_run
from eval.papers.ablation import load_grid, plan
from eval.studies import grid_run
from tests.command_line import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch):
    """No user, four cores; torch's own number is put back."""
    for name in (threads.USER_VARIABLE, threads.SHARE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    before = torch.get_num_threads()
    yield
    threads.ask(None)
    torch.set_num_threads(before)


def test_the_widest_layer_counts():
    # the embedded world: a block of 3 frames of 8 x 8 cells in 2 x 2 patches has 48 tokens: 2 * 48 * 128 * 512 =
    # 6,291,456
    recipe = load_recipe("astrolabe_causal_shapes")
    video = recipe.video
    small = recipe.model.layer_flops(video.block, video.height, video.width)
    assert small == 6_291_456
    # Wan 2.1 1.3B: 3 frames of 60 x 104 cells have 4680 tokens: 2 * 4680 * 1536 * 8960 = 128,817,561,600
    large = WanConfig().layer_flops(3, 60, 104)
    assert large == 128_817_561_600
    assert threads.choose(small).number == 1
    assert threads.choose(large).number == 4
    assert "small layers" in threads.choose(small).why
    assert threads.choose(threads.THREADS_PAY_FLOPS).number == 4
    assert threads.choose(threads.THREADS_PAY_FLOPS - 1).number == 1


@pytest.mark.parametrize(
    ("given", "number"), [("3", 3), (" 2 ", 2), ("3,1", 3), ("16", 16), ("", 1), ("0", 1), ("-2", 1), ("many", 1)]
)
def test_the_users_variable_comes_first_and_nonsense_is_passed_over_as_openmp_does(given, number, monkeypatch):
    monkeypatch.setenv(threads.USER_VARIABLE, given)
    assert threads.choose(threads.SMALL).number == number


def test_the_option_comes_before_the_variable(monkeypatch):
    monkeypatch.setenv(threads.USER_VARIABLE, "3")
    threads.ask(2)
    assert threads.choose(threads.LARGE) == (2, "--threads")
    assert threads.share(2) == {"ASTRO_CORES": "2", "OMP_NUM_THREADS": "2"}  # for processes that are started, too


@pytest.mark.parametrize(("processes", "each"), [(1, 4), (2, 2), (3, 1), (8, 1)])
def test_processes_side_by_side_share_the_cores(processes, each, monkeypatch):
    shared = threads.share(processes)
    assert shared == {"ASTRO_CORES": str(each)}
    monkeypatch.setenv(threads.SHARE_VARIABLE, shared["ASTRO_CORES"])
    assert threads.cores() == each
    assert threads.choose(threads.LARGE).number == each
    assert threads.choose(threads.SMALL).number == 1


def test_no_share_is_more_than_there_is(monkeypatch):
    monkeypatch.setenv(threads.SHARE_VARIABLE, "9")
    assert threads.cores() == 4


def test_arms_are_loaded_with_threads_that_fit(monkeypatch):
    torch.set_num_threads(2)
    load_arm("shapes/causal_forcing")
    assert torch.get_num_threads() == 1
    monkeypatch.setattr(threads, "THREADS_PAY_FLOPS", 6e6)
    load_arm("shapes/causal_forcing")
    assert torch.get_num_threads() == 4


def test_training_begins_with_threads_that_fit(tmp_path, monkeypatch):
    """They are set before anything is built; an option beats the rule, whatever command it is given to."""
    seen = []

    def built(*_):
        seen.append(torch.get_num_threads())
        raise RunError("here", "", "far enough")

    monkeypatch.setattr(training_run, "build", built)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)
    command = ["rl", "--recipe", "astrolabe_causal_shapes", "--out", "out"]
    assert run(command, monkeypatch) == 1
    assert run([*command, "--threads", "3"], monkeypatch) == 1
    assert seen == [1, 3]


def test_no_threads_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sample", "a red circle", "--threads", "0"], monkeypatch) == 2
    assert "error: --threads: input should be greater than or equal to 1, found '0'" in capsys.readouterr().err


def test_runs_of_a_grid_share_the_cores(tmp_path, monkeypatch):
    """Every process is started with its share, and may still choose fewer threads."""
    seen = tmp_path / "seen"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho $ASTRO_CORES "$OMP_NUM_THREADS" >> {seen}\nexit 1\n')
    program.chmod(0o755)
    jobs = plan(load_grid("astrolabe-4c"), [0], tmp_path / "runs", [], None)[1:3]
    grid = grid_run.GridRun(tmp_path / "results", tmp_path / "logs")
    monkeypatch.setattr(processes.sys, "executable", str(program))
    assert len(grid.run(jobs, 2, lambda *_: None)) == 2
    assert seen.read_text().split("\n") == ["2 ", "2 ", ""]


IN_BACKGROUND = """
import os, time, torch
from astro_cli.core.background import Background
torch.set_num_threads(1)
x = torch.randn(1500, 1500)
def work():
    own, all_ = time.thread_time(), time.process_time()
    for _ in range(4):
        x @ x
    return (time.process_time() - all_) / (time.thread_time() - own)
with Background(torch.device("cpu")) as background:
    print(background.submit(work).result())
"""


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else True, reason="needs two cores"
)
def test_the_background_thread_computes_on_as_many_threads():
    """A new thread would take all cores for its matrix products: the process would spend about twice that thread's own
    CPU time.
    """
    environment = {key: value for key, value in os.environ.items() if key != threads.USER_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", IN_BACKGROUND],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
    )
    assert float(done.stdout) < 1.3


def test_doctor_says_how_many_and_why(monkeypatch, capsys):
    monkeypatch.setenv(threads.USER_VARIABLE, "3")
    assert run(["doctor", "--json"], monkeypatch) == 0
    machine = json.loads(capsys.readouterr().out)["machine"]
    assert (machine["threads"], machine["threads_why"]) == (3, "OMP_NUM_THREADS")
    monkeypatch.delenv(threads.USER_VARIABLE)
    assert run(["doctor"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "1: for small layers" in out
    assert "4: for large layers" in out

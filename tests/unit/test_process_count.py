"""Several processes of one training: how many, and how they end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch

from astro_cli.commands import training_run
from astro_cli.core import processes
from astro_cli.recipe import load_recipe
from astro_cli.training import build


@pytest.mark.parametrize(
    ("shares", "cores", "most"), [([4], 2, 2), ([4], 3, 2), ([4, 6], 8, 2), ([9], 4, 3), ([5], 1, 1)]
)
def test_the_most_processes_divide_every_batch(shares, cores, most):
    assert processes.most_processes(shares, cores) == most


def test_recipes_of_small_networks_train_on_all_cores_unless_threads_are_asked_for(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(training_run.threads, "cores", lambda: 8)
    recipe = load_recipe("astrolabe_causal_shapes", ["runtime.device=cpu"])
    assert training_run._processes(recipe) == 4  # its prompts
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert training_run._processes(recipe) == 1


def test_the_process_group_leaves_the_number_of_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(build, "Accelerator", lambda **_: torch.set_num_threads(before + 1))
    build.make_accelerator(load_recipe("astrolabe_causal_shapes", ["runtime.device=cpu"]))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["rl", "--recipe", "no_such"], 2)])
def test_processes_end_together_with_the_first_exit_code(capfd, arguments, code):
    assert processes.run_together(arguments, 2) == code
    assert "Traceback" not in capfd.readouterr().err


def test_a_process_ends_with_the_one_that_started_it_however_that_ends(tmp_path):
    inner = "import os, time; from astro_cli.core import processes; processes.end_with_starter(); " + (
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    outer = "import subprocess, sys; from astro_cli.core import processes; " + (
        f"subprocess.run([sys.executable, '-c', {inner!r}], env=processes.environment())"
    )
    starter = subprocess.Popen([sys.executable, "-c", outer], start_new_session=True)
    started = int(wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()))
    assert is_running(started)
    starter.kill()
    starter.wait()
    wait_for(lambda: not is_running(started))


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(value: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if result := value():
            return result
        time.sleep(0.05)
    raise AssertionError("not within 30 s")

"""A run's folder belongs to one process at a time."""

import subprocess
import sys

import pytest

from astro_cli.config.errors import OutputError
from astro_cli.recipe import load_recipe
from astro_cli.training.rundir import RunDir

HOLDER = """
import sys
from pathlib import Path
from astro_cli.recipe import load_recipe
from astro_cli.training.rundir import RunDir
run = RunDir(Path(sys.argv[1]))
run.open(load_recipe("astrolabe_causal_shapes"), "", resume=False, device="cpu")
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_do_not_train_in_one_folder_and_a_killed_one_lets_go(tmp_path):
    folder, recipe = tmp_path / "run", load_recipe("astrolabe_causal_shapes")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another process"):
            RunDir(folder).open(recipe, "", resume=True, device="cpu")
    finally:
        holder.kill()
        holder.wait()
    RunDir(folder).open(recipe, "", resume=True, device="cpu")


def test_a_released_folder_can_be_resumed_by_the_same_process(tmp_path):
    recipe, first = load_recipe("astrolabe_causal_shapes"), RunDir(tmp_path / "run")
    first.open(recipe, "", resume=False, device="cpu")
    with pytest.raises(OutputError, match="another process"):
        RunDir(tmp_path / "run").open(recipe, "", resume=True, device="cpu")
    first.release()
    RunDir(tmp_path / "run").open(recipe, "", resume=True, device="cpu")

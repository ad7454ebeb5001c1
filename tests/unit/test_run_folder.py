"""A run's folder belongs to one process at a time."""

import subprocess
import sys

import pytest
import torch

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
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
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


def test_a_damaged_folder_and_one_that_is_a_file_are_named(tmp_path):
    recipe, run = load_recipe("astrolabe_causal_shapes"), RunDir(tmp_path / "run")
    run.open(recipe, "", resume=False, device="cpu")
    run.release()
    assert run.identity() == (recipe.name, recipe.hash())
    for damage in ('{"hash": ', "[]", '{"hash": "0"}'):
        (run.path / "resolved.json").write_text(damage)
        with pytest.raises(OutputError, match=r"resolved\.json.*damaged"):
            RunDir(run.path).open(recipe, "", resume=True, device="cpu")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        RunDir(tmp_path / "file").open(recipe, "", resume=False, device="cpu")
    with pytest.raises(OutputError, match="cannot be created"):
        RunDir(tmp_path / "file" / "run").open(recipe, "", resume=False, device="cpu")
    assert (tmp_path / "file").read_text() == "mine"


def test_there_must_be_a_run_to_resume(tmp_path):
    recipe = load_recipe("astrolabe_causal_shapes")
    with pytest.raises(OutputError, match="there is no run to continue") as caught:
        RunDir(tmp_path / "run").open(recipe, "", resume=True, device="cpu")
    assert "--resume" in caught.value.key
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_written_after_the_rows_it_counts_on(tmp_path, monkeypatch):
    """Synced before the folder has its name: rows, then tensors and meta data, then the folder's names."""
    from astro_cli.models import weights

    synced = []
    monkeypatch.setattr(weights, "sync", lambda path: synced.append(path.name))
    run = RunDir(tmp_path)
    run.log({"step": 0})
    run.save_checkpoint(1, 0, 1, 1, {"network-student": {"w": torch.zeros(1)}})
    assert synced == [
        "metrics.jsonl",
        ".network-student.safetensors.part",
        ".meta.json.part",
        ".00000001.part",
        "checkpoints",
    ]

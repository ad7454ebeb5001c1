"""A run's folder belongs to one process at a time, to one recipe, and to the inputs the run began with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from astro_cli.config import durable
from astro_cli.config.errors import OutputError
from astro_cli.models import weights
from astro_cli.recipe import load_recipe
from astro_cli.spec import Recipe
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
    """Synced before the folder has its name: rows, then tensors and meta data with their names, then the folder's."""
    synced = []
    monkeypatch.setattr(durable, "sync", lambda path: synced.append(path.name.replace(f".{os.getpid()}", "")))
    run = RunDir(tmp_path)
    run.log({"step": 0})
    run.save_checkpoint(0, 1, 1, {"network-student": {"w": torch.zeros(1)}})
    assert synced == [
        "metrics.jsonl",
        ".network-student.safetensors.part",
        ".00000001.part",
        ".meta.json.part",
        ".00000001.part",
        "checkpoints",
    ]


# --- what a kill leaves before there is a checkpoint


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("left", [
    (".lock",), (".lock", ".recipe.toml.7.part"), (".lock", "recipe.toml", ".environment.json.7.part"),
    (".lock", "recipe.toml", ".environment.json.part"),
    (".lock", "recipe.toml", "environment.json", ".resolved.json.part"),
])  # fmt: skip
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_killed_at_its_start_begins_again(tmp_path, left, resume):
    recipe, run = load_recipe("astrolabe_causal_shapes"), RunDir(tmp_path)
    for name in left:
        (tmp_path / name).write_text("torn")
    assert run.open(recipe, "given", resume=resume, device="cpu") == []
    assert names(tmp_path) == {".lock", "recipe.toml", "environment.json", "resolved.json"}
    assert (tmp_path / "recipe.toml").read_text() == "given"
    assert run.identity() == (recipe.name, recipe.hash())


@pytest.mark.parametrize("foreign", ["notes.txt", "recipe.toml", ".environment.json.part", "environment.json"])
def test_what_no_run_of_ours_left_is_not_touched(tmp_path, foreign):
    (tmp_path / foreign).write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match="is not empty and holds no run"):
            RunDir(tmp_path).open(load_recipe("astrolabe_causal_shapes"), "", resume=resume, device="cpu")
    assert names(tmp_path) == {foreign}
    assert (tmp_path / foreign).read_text() == "mine"


def test_what_killed_writers_left_is_swept_up_when_a_run_goes_on(tmp_path):
    recipe, run = load_recipe("astrolabe_causal_shapes"), RunDir(tmp_path)
    run.open(recipe, "", resume=False, device="cpu")
    run.release()
    before = names(tmp_path)
    (tmp_path / "checkpoints" / ".00000003.part").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".00000003.part" / "meta.json").write_text("{")
    (tmp_path / ".metrics.jsonl.7.part").write_text("")
    run.open(recipe, "", resume=True, device="cpu")
    assert names(tmp_path) == before | {"checkpoints"}
    assert names(tmp_path / "checkpoints") == set()


# --- inputs and environment


@pytest.fixture
def sources(tmp_path) -> dict[str, Path]:
    """A base's file and a prompts file that a recipe reads."""
    base, prompts = tmp_path / "base.safetensors", tmp_path / "prompts.txt"
    shutil.copyfile(weights.find("shapes/causal_forcing", "student"), base)
    prompts.write_text("a red circle\na blue square\n")
    return {"base.student": base, "stages.nft.data.prompts": prompts}


def reading(sources: dict[str, Path]) -> Recipe:
    return load_recipe("astrolabe_causal_shapes", [f"{key}={path}" for key, path in sources.items()])


def test_a_run_does_not_go_on_with_other_inputs(tmp_path, sources):
    recipe, run = reading(sources), RunDir(tmp_path / "run")
    run.open(recipe, "", resume=False, device="cpu")
    run.release()
    assert json.loads((run.path / "resolved.json").read_text())["inputs"].keys() == {"base.codec", *sources}
    for key, path in sources.items():
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert run.changed(recipe)
        with pytest.raises(OutputError, match=f"--resume: {key} changed since the run began") as caught:
            RunDir(run.path).open(recipe, "", resume=True, device="cpu")
        assert caught.value.exit_code == 2
        path.write_bytes(before)
        assert not run.changed(recipe)
    run.open(recipe, "", resume=True, device="cpu")


def test_a_run_of_before_inputs_were_recorded_goes_on_with_a_warning(tmp_path, sources):
    recipe, run = reading(sources), RunDir(tmp_path / "run")
    run.open(recipe, "", resume=False, device="cpu")
    run.release()
    resolved = json.loads((run.path / "resolved.json").read_text())
    del resolved["inputs"]
    (run.path / "resolved.json").write_text(json.dumps(resolved))
    (warning,) = run.open(recipe, "", resume=True, device="cpu")
    assert "not compared" in warning


@pytest.mark.parametrize("damage", [None, "{", "[]", "{}", '{"versions": 3}', "[" * 100_000])
def test_a_damaged_environment_is_written_anew(tmp_path, damage):
    recipe, run = load_recipe("astrolabe_causal_shapes"), RunDir(tmp_path / "run")
    run.open(recipe, "", resume=False, device="cpu")
    run.release()
    path = run.path / "environment.json"
    before = path.read_bytes()
    path.unlink() if damage is None else path.write_text(damage)
    (warning,) = run.open(recipe, "", resume=True, device="cpu")
    assert "environment.json: cannot be read" in warning
    assert path.read_bytes() == before
    path.unlink()  # while it runs
    assert run.origin() == json.loads(before)


def test_another_environment_is_warned_about_and_the_first_one_stays(tmp_path):
    recipe, run = load_recipe("astrolabe_causal_shapes"), RunDir(tmp_path / "run")
    run.open(recipe, "", resume=False, device="cpu")
    run.release()
    path = run.path / "environment.json"
    old = json.loads(path.read_text())
    path.write_text(json.dumps(old | {"commit": "0" * 40, "versions": old["versions"] | {"torch": "1.0"}}))
    (warning,) = run.open(recipe, "", resume=True, device="cpu")
    assert "torch 1.0, now " in warning
    assert f"commit {'0' * 40}, now " in warning
    assert run.origin()["commit"] == "0" * 40


# --- final weights


def test_a_finished_run_knows_its_files(tmp_path):
    recipe, run = load_recipe("astrolabe_causal_shapes"), RunDir(tmp_path)
    (run.final / "lora").mkdir(parents=True)
    for name in ("student.safetensors", "lora/adapter_config.json"):
        (run.final / name).write_text(name)
    assert not run.finished
    run.finish(recipe)
    assert run.finished
    assert run.final_fault() == ""
    (run.final / "lora" / "adapter_config.json").write_text("LORA/adapter_config.json")
    assert "adapter_config.json: damaged" in run.final_fault()
    (run.final / "student.safetensors").unlink()
    assert not run.finished
    run.finish(recipe)
    for damage in ("", "{", "[]", '{"files": 3}'):
        (run.final / "card.json").write_text(damage)
        assert not run.finished

"""Weights that are not finite are refused where they are loaded, whoever loads them, with their file and tensor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from astro_cli.models import weights
from tests.command_line import run

LAYER = "blocks.0.attn1.to_q"
RL = "astrolabe_self_forcing_shapes"
TRAIN = ["--out", "run", "--steps", "1"]


def broken(source: str, role: str, folder: Path) -> Path:
    """A packaged base beside its card, with one NaN."""
    path = folder / "student.safetensors"
    file = weights.find(source, role)
    state = load_file(file)
    state["proj_out.weight" if role == "student" else "mean"].view(-1)[0] = float("nan")
    folder.mkdir(parents=True)
    save_file(state, path)
    shutil.copyfile(file.with_suffix(".json"), path.with_suffix(".json"))
    return path


@pytest.mark.parametrize(("arguments", "role", "tensor"), [
    (["eval", "shapes", "--arm", "{path}", "--prompts", "1", "--timing", "none"], "student", "proj_out.weight"),
    (["sample", "a red circle", "--weights", "{path}"], "student", "proj_out.weight"),
    (["rl", "--recipe", RL, "--set", "base.student={path}", *TRAIN], "student", "proj_out"),
    (["distill", "--recipe", "self_forcing_shapes", "--set", "base.teacher={path}", *TRAIN], "student", "proj_out"),
    (["rl", "--recipe", RL, "--set", "base.codec={path}", *TRAIN], "codec", "mean"),
])  # fmt: skip
def test_one_nan_is_named_and_nothing_is_left(arguments, role, tensor, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = broken("shapes/codec" if role == "codec" else "shapes/self_forcing", role, tmp_path / "bad")
    assert run([argument.format(path=path) for argument in arguments], monkeypatch) == 2
    err = capsys.readouterr().err
    assert f"{path}: {tensor}" in err
    assert "1 of its " in err
    assert "NaN or infinite" in err
    assert sorted(entry.name for entry in tmp_path.iterdir() if any(entry.rglob("*"))) == ["bad"]


def adapter(folder: Path, a: float, alpha: str) -> Path:
    folder.mkdir()
    size = json.loads(weights.find("shapes/self_forcing", "student").with_suffix(".json").read_text())["model"]["dim"]
    name = f"base_model.model.{LAYER}"
    halves = {f"{name}.lora_A.weight": torch.full((2, size), a), f"{name}.lora_B.weight": torch.ones(size, 2)}
    save_file(halves, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "r": 2, "lora_alpha": {alpha}}}')
    return folder


@pytest.mark.parametrize(("a", "alpha", "says"), [
    (float("nan"), "2", f"{LAYER}.weight, lora_A"),
    (float("inf"), "2", f"{LAYER}.weight, lora_A"),
    (1.0, "NaN", "lora_alpha"),
    (1.0, "1e999", "lora_alpha"),
    (1e30, "1e30", f"{LAYER}.weight"),  # the product
])  # fmt: skip
def test_an_adapter_that_breaks_the_weights_is_named(a, alpha, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lora = adapter(tmp_path / "lora", a, alpha)
    assert run(["sample", "a red circle", "--weights", "shapes/self_forcing", "--lora", str(lora)], monkeypatch) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert sorted(entry.name for entry in tmp_path.iterdir() if any(entry.rglob("*"))) == ["lora"]

"""`astro zoo verify`: what it finds wrong with a folder, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from released_layouts import (
    diffusers_model,
    write_pickle,
)
from safetensors.torch import load_file, save_file

ONE = "diffusion_pytorch_model.safetensors"


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_verify_finds_numbers_that_are_not_finite_in_an_import(zoo, teacher, tmp_path):
    zoo("import", "wan_1.3b")
    path = tmp_path / "all" / "wan_1.3b" / ONE
    state = load_file(path)
    for name in ("proj_out.bias", "proj_out.weight"):
        state[name].view(-1)[0] = float("inf")
    save_file(state, path)
    code, out, _ = zoo("verify", "wan_1.3b")
    assert code == 1
    assert "wrong  proj_out.bias: 1 of its " in out
    assert "wrong  1 more tensors are not finite" in out


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("flip", "sha256 differs from the manifest's"),
        ("cut", "bytes, expected"),
        ("lose", "missing file"),
        ("add", "extra file, not in the manifest"),
        ("drop a tensor", "1 tensors missing: blocks.0.attn1.norm_k.weight"),
        ("extra tensor", "1 tensors unexpected: extra"),
        ("another shape", "1 tensors resized: proj_out.bias"),
        ("another dtype", "1 tensors are not float32: proj_out.bias"),
    ],
)
def test_verify_names_what_is_wrong(zoo, teacher, damage, says, tmp_path):
    zoo("import", "wan_1.3b")
    folder = tmp_path / "all" / "wan_1.3b"
    assert zoo("verify", "wan_1.3b")[:2] == (0, f"ok  {folder}\n")
    path = folder / ONE
    content, state = path.read_bytes(), load_file(path)
    if damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        path.write_bytes(content[:-50])
    elif damage == "lose":
        (folder / "config.json").unlink()
    elif damage == "add":
        (folder / "more.bin").touch()
    elif damage == "drop a tensor":
        del state["blocks.0.attn1.norm_k.weight"]
    elif damage == "extra tensor":
        state["extra"] = torch.zeros(1)
    else:
        state["proj_out.bias"] = torch.zeros(3) if damage == "another shape" else state["proj_out.bias"].half()
    if damage not in ("flip", "cut", "lose", "add"):
        save_file(state, path)
    code, out, _ = zoo("verify", "wan_1.3b", "--json")
    report = json.loads(out)
    assert code == 1
    assert not report["ok"]
    assert any(says in line for line in report["problems"])


def test_verify_checks_a_release_without_a_manifest(zoo, teacher, tmp_path):
    code, out, _ = zoo("verify", "wan_1.3b")
    assert (code, out) == (0, f"ok  {teacher}  (no manifest: bytes not checked)\n")
    path = write_pickle(tmp_path / "x.pt", {"generator": {"patch_embedding.weight": torch.zeros(3)}})
    code, out, _ = zoo("verify", path)
    assert code == 1
    assert "wrong  " in out
    assert "no Wan transformer" in out


def test_verify_refuses_what_is_not_there_and_a_broken_manifest(zoo, tmp_path):
    assert zoo("verify", "nowhere")[0] == 2
    (tmp_path / "manifest.json").write_text('{"config": {}}')
    code, _, err = zoo("verify", tmp_path)
    assert code == 2
    assert "manifest.json: dtype, tensors, written: missing or incomplete" in err


def test_diffusers_writes_what_verify_accepts(zoo, state, tmp_path):
    diffusers_model(state).save_pretrained(tmp_path / "theirs")
    assert zoo("verify", tmp_path / "theirs")[0] == 0

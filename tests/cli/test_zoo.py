"""`astro zoo import`: the folder it leaves, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from released_layouts import (
    CONFIG,
    forward,
    network,
    original,
    original_config,
)
from safetensors.torch import load_file, save_file

from astro_cli.config.errors import OutputError
from astro_cli.models import importing
from astro_cli.models.checkpoint import into, load_transformer

ONE = "diffusion_pytorch_model.safetensors"


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_import_loads_in_diffusers_and_here(zoo, teacher, state, tmp_path):
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    code, out, err = zoo("import", "wan_1.3b")
    folder = tmp_path / "all" / "wan_1.3b"
    assert (code, out.strip()) == (0, str(folder))
    assert "imported: flat, safetensors, original names" in err
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", ONE, "manifest.json"]
    theirs, info = WanTransformer3DModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(value, state[key]) for key, value in theirs.state_dict().items())
    found = load_transformer(folder)
    assert (found.format, found.config.num_heads) == ("safetensors, diffusers names", CONFIG.num_heads)
    ours = network(9)
    into(ours, found)
    assert torch.equal(forward(ours), forward(network(1)))
    assert load_transformer("wan_1.3b").source == folder / ONE  # by its name, the import comes before the release


def test_the_manifest_says_where_the_weights_come_from(zoo, teacher, state, tmp_path):
    from astro_cli.models.hashes import sha256

    zoo("import", "wan_1.3b", "--dtype", "bf16")
    folder = tmp_path / "all" / "wan_1.3b"
    found = manifest(folder)
    assert found["source_name"] == f"Wan2.1-T2V-1.3B/{ONE}"
    assert found["source"]["files"] == [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in (teacher / "config.json", teacher / ONE)
    ]
    assert (found["repo"], found["licence"], found["nesting"]) == ("Wan-AI/Wan2.1-T2V-1.3B", "Apache-2.0", "flat")
    assert (found["dtype"], found["tensors"], found["parameters"]) == (
        "bfloat16",
        len(state),
        sum(v.numel() for v in state.values()),
    )
    assert found["config"] == CONFIG.model_dump(mode="json")
    assert torch.equal(load_file(folder / ONE)["proj_out.weight"], state["proj_out.weight"].bfloat16())


def test_a_large_model_is_written_in_shards(monkeypatch, zoo, teacher, state, tmp_path):
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    folder, new = importing.import_checkpoint(
        "wan_1.3b", None, lora=(), dtype=None, ema=None, report=lambda *_: None, shard_size=40_000
    )
    assert new
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    assert all(path.stat().st_size < 50_000 for path in shards)  # a shard's tensors and its header
    theirs = WanTransformer3DModel.from_pretrained(folder)
    assert all(torch.equal(value, state[key]) for key, value in theirs.state_dict().items())
    assert load_transformer(folder).format == "shards, diffusers names"
    assert zoo("verify", folder)[0] == 0
    shards[1].unlink()
    code, out, _ = zoo("verify", folder)
    assert code == 1
    assert f"{shards[1].name}: missing file" in out
    assert "tensors missing: " in out


@pytest.mark.parametrize(
    ("flag", "nesting", "seed"),
    [((), "generator_ema", 1), (("--ema",), "generator_ema", 1), (("--no-ema",), "generator", 2)],
)
def test_the_moving_average_is_a_choice(zoo, flag, nesting, seed, tmp_path):
    both = {"generator": original(network(2).state_dict()), "generator_ema": original(network(1).state_dict())}
    folder = tmp_path / "w"
    folder.mkdir()
    torch.save(both, folder / "diffusion_pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(original_config()))
    assert zoo("import", folder, "--to", tmp_path / "out", *flag)[0] == 0
    assert manifest(tmp_path / "out")["nesting"] == nesting
    assert torch.equal(load_file(tmp_path / "out" / ONE)["proj_out.bias"], network(seed).proj_out.bias)


def test_importing_again_changes_nothing_and_repairs_damage(zoo, teacher, tmp_path):
    folder = tmp_path / "all" / "wan_1.3b"
    zoo("import", "wan_1.3b")
    before = files(folder)
    code, _, err = zoo("import", "wan_1.3b")
    assert code == 0
    assert "there already" in err
    assert files(folder) == before
    (folder / ONE).write_bytes(before[ONE][:100])
    code, _, err = zoo("import", "wan_1.3b")
    assert code == 0
    assert "imported: " in err
    assert files(folder) == before


def test_an_existing_folder_with_something_else_is_refused(zoo, teacher, tmp_path):
    zoo("import", "wan_1.3b")
    folder = tmp_path / "all" / "wan_1.3b"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    before = files(tmp_path)
    for arguments, says in (
        (("wan_1.3b", "--dtype", "bf16"), "holds another import (dtype is ['float32'], this is 'bfloat16')"),
        (("wan_1.3b", "--to", tmp_path / "mine"), "is not empty and holds no import"),
        (("wan_1.3b", "--to", teacher), "holds the source itself"),
        (("wan_1.3b", "--to", teacher / ONE), "is a file, expected a folder"),
    ):
        code, out, err = zoo("import", *arguments)
        assert (code, out) == (2, "")
        assert says in err
        assert files(tmp_path) == before
    (folder / "notes.txt").write_text("mine")
    code, _, err = zoo("import", "wan_1.3b")
    assert code == 2
    assert "holds files that are not of the import: notes.txt" in err


def test_a_failed_import_leaves_nothing(monkeypatch, teacher, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "all"))
    before = files(tmp_path)

    def full(*_: object) -> None:
        raise OutputError("disk", "", "is full")

    monkeypatch.setattr(importing.durable, "write_json", full)  # after the tensors
    with pytest.raises(OutputError):
        importing.import_checkpoint("wan_1.3b", None, lora=(), dtype=None, ema=None, report=lambda *_: None)
    assert files(tmp_path) == before
    assert not (tmp_path / "all" / ".wan_1.3b.part").exists()


def test_a_release_that_is_gone_is_not_imported_from_its_import(zoo, teacher):
    zoo("import", "wan_1.3b")
    for path in teacher.iterdir():
        path.unlink()
    teacher.rmdir()
    code, _, err = zoo("import", "wan_1.3b")
    assert code == 2
    assert "imported already to" in err
    assert zoo("verify", "wan_1.3b")[0] == 0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere", "no such checkpoint"),
        ("longlive", "put models/longlive_base.pt of Efficient-Large-Model/LongLive-1.3B at"),
        ("longlive_lora", "merge it into its base: astro zoo import longlive --lora longlive_lora"),
        ("bad.pt", "refused, nothing of it ran"),
    ],
)
def test_bad_sources_are_refused(zoo, source, says, tmp_path):
    class Code:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"generator": Code()}, tmp_path / "bad.pt")
    code, out, err = zoo("import", source)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("number", "dtype", "says"),
    [
        (float("nan"), None, "1 of its {size} numbers are NaN or infinite"),
        (float("-inf"), "bf16", "1 of its {size} numbers are NaN or infinite"),
        (70000.0, "fp16", "overflows float16: found 70000, float16 ends at 65504"),
    ],
)
def test_weights_that_are_not_finite_are_not_imported(zoo, teacher, state, tmp_path, number, dtype, says):
    state["proj_out.weight"][0, 0] = number
    save_file(original(state), teacher / ONE)
    code, out, err = zoo("import", "wan_1.3b", *(("--dtype", dtype) if dtype else ()))
    assert (code, out) == (2, "")
    assert f"{ONE}: proj_out.weight: {says.format(size=state['proj_out.weight'].numel())}" in err
    assert [path.name for path in (tmp_path / "all").iterdir()] == [teacher.name]
    wrong, out, _ = zoo("verify", "wan_1.3b")
    assert wrong == (0 if dtype == "fp16" else 1)  # in its own dtype 70000 is a number
    if wrong:
        assert f"wrong  proj_out.weight: {says.format(size=state['proj_out.weight'].numel())}" in out


def test_large_weights_fit_into_bfloat16(zoo, teacher, state, tmp_path):
    state["proj_out.weight"][0, 0] = 70000.0
    save_file(original(state), teacher / ONE)
    assert zoo("import", "wan_1.3b", "--dtype", "bf16")[0] == 0

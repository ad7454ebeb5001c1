"""`astro zoo`: what it lists, the folder an import leaves, what verify finds wrong, and what both refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from released_layouts import (
    CONFIG,
    State,
    diffusers_model,
    forward,
    network,
    original,
    original_config,
    write_original,
    write_pickle,
)
from safetensors.torch import load_file, save_file

from astro_cli.__main__ import main
from astro_cli.config.errors import CheckpointError, OutputError
from astro_cli.models import importing, lora, lora_files
from astro_cli.models.checkpoint import into, load_transformer
from astro_cli.models.merged import merge_into
from astro_cli.zoo.entries import ENTRIES

ONE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def zoo(monkeypatch, capsys, tmp_path):
    """Runs `astro zoo ...` with an empty checkpoints folder: (exit code, stdout, stderr)."""
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "all"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["astro", "zoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        code = caught.value.code
        return (code if isinstance(code, int) else 0), out, err

    return run


@pytest.fixture
def state() -> State:
    return network(1).state_dict()


@pytest.fixture
def teacher(tmp_path, state) -> Path:
    """The 1.3B teacher's folder as released, below the checkpoints folder."""
    return write_original(tmp_path / "all" / "Wan2.1-T2V-1.3B", state)


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- list


def test_list_says_what_is_here_and_where_the_rest_belongs(zoo, teacher, tmp_path):
    zoo("import", "wan_1.3b")
    (tmp_path / "all" / "Wan2.1-T2V-14B").mkdir()
    code, out, _ = zoo("list", "--json")
    report = json.loads(out)
    rows = {row["name"]: row for row in report["entries"]}
    assert code == 0
    assert report["checkpoints"] == str(tmp_path / "all")
    assert list(rows) == [entry.name for entry in ENTRIES]
    assert rows["wan_1.3b"]["state"] == "imported"
    assert rows["wan_1.3b"]["path"] == str(tmp_path / "all" / "wan_1.3b")
    assert rows["wan_14b"]["state"] == "here"
    assert rows["self_forcing"] == {
        "name": "self_forcing",
        "state": "missing",
        "kind": "transformer",
        "what": "Self-Forcing student",
        "repo": "gdhe17/Self-Forcing",
        "file": "checkpoints/self_forcing_dmd.pt",
        "format": "torch.save, original names",
        "nesting": "generator, critic, generator_ema",
        "licence": "Apache-2.0 (code)",
        "path": str(tmp_path / "all" / "Self-Forcing" / "checkpoints" / "self_forcing_dmd.pt"),
    }


def test_list_prints_a_line_per_entry(zoo):
    code, out, err = zoo("list")
    assert code == 0
    assert len(out.splitlines()) == 1 + len(ENTRIES)
    assert "belongs at REPO/FILE below" in err


def test_list_and_help_import_nothing_heavy():
    code = (
        "import sys; sys.argv = ['astro', 'zoo', 'list']\nfrom astro_cli.__main__ import main\ntry:\n    "
        "main()\nexcept SystemExit:\n    pass\n"
    )
    code += (
        "print('heavy:', [name for name in ('torch', 'numpy', 'diffusers', 'peft') if name in sys.modules], "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("command", ["list", "import", "verify"])
def test_help_has_an_example(zoo, command):
    assert f"Example: astro zoo {command}" in zoo(command, "--help")[1]


# --- import


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


def test_a_lora_is_merged(zoo, teacher, state, tmp_path):
    adapted = network(1)
    lora.add_adapters(adapted, 2, 4, 0.0, ("default",), torch.Generator().manual_seed(1))
    for value in lora.adapter_state(adapted, "default").values():
        value.data += 0.1
    lora_files.save_diffusers(tmp_path / "lora", lora.adapter_state(adapted, "default"), 2, 4, lora.TARGETS)
    code, out, _ = zoo("import", "wan_1.3b", "--lora", tmp_path / "lora")
    assert code == 0
    folder = tmp_path / "all" / "wan_1.3b-merged"
    assert out.strip() == str(folder)
    assert manifest(folder)["loras"][0]["pairs"] == 10 * CONFIG.num_layers
    merged = network(9)
    into(merged, load_transformer("wan_1.3b-merged"))
    torch.testing.assert_close(forward(merged), forward(adapted), atol=1e-5, rtol=1e-5)


def adapter(folder: Path, seed: int, save=lora_files.save_diffusers) -> Path:
    adapted = network(1)
    lora.add_adapters(adapted, 2, 4, 0.0, ("default",), torch.Generator().manual_seed(seed))
    for value in lora.adapter_state(adapted, "default").values():
        value.data += 0.1
    save(folder, lora.adapter_state(adapted, "default"), 2, 4, lora.TARGETS)
    return folder


def test_a_lora_is_not_merged_twice(zoo, teacher, tmp_path):
    first, second = adapter(tmp_path / "first", 1), adapter(tmp_path / "second", 2)
    peft = adapter(tmp_path / "peft", 1, lora_files.save_peft)  # the first in another layout
    assert zoo("import", "wan_1.3b", "--lora", first)[0] == 0
    for again in (first, peft):
        code, out, err = zoo("import", "wan_1.3b-merged", "--lora", again)
        assert (code, out) == (2, "")
        assert f"is merged into {tmp_path / 'all' / 'wan_1.3b-merged' / ONE} already, says manifest.json" in err
    assert zoo("import", "wan_1.3b-merged", "--lora", second, "--to", tmp_path / "both")[0] == 0
    assert zoo("import", tmp_path / "both", "--to", tmp_path / "cast", "--dtype", "bf16")[0] == 0
    for again in (first, second):  # remembered over further imports
        for folder in (tmp_path / "both", tmp_path / "cast"):
            assert zoo("import", folder, "--lora", again, "--to", tmp_path / "x")[0] == 2
    assert not (tmp_path / "x").exists()


def test_an_adapter_of_one_of_two_transformers_is_said(zoo, teacher, tmp_path):
    path = adapter(tmp_path / "first", 1) / lora_files.DIFFUSERS_FILE
    code, _, err = zoo("import", "wan_1.3b", "--lora", path.rename(tmp_path / "Wan2.2_high_noise_lora.safetensors"))
    assert code == 0
    assert "warning: " in err
    assert "by its name an adapter of one of Wan 2.2's two transformers" in err


def test_an_import_from_before_hashes_of_the_content_is_known_by_its_file(zoo, teacher, tmp_path):
    first = adapter(tmp_path / "first", 1)
    zoo("import", "wan_1.3b", "--lora", first)
    path = tmp_path / "all" / "wan_1.3b-merged" / "manifest.json"
    new = json.loads(path.read_text())
    old = {key: value for key, value in new.items() if "lora" not in key}
    old |= {"format": 1, "lora": {key: value for key, value in new["loras"][0].items() if key != "strength"}}
    path.write_text(json.dumps(old))
    assert zoo("import", "wan_1.3b", "--lora", first)[0] == 0  # the same import, there already
    assert zoo("import", "wan_1.3b-merged", "--lora", first)[0] == 2


def test_a_runs_adapter_is_not_merged_into_its_own_weights(state, tmp_path):
    final = tmp_path / "final"
    save_file(state, final.parent / "base.safetensors")
    adapter(final / "lora", 1)
    save_file(state, final / "student.safetensors")
    base = load_transformer(tmp_path / "base.safetensors", config=CONFIG)
    student = load_transformer(final / "student.safetensors", config=CONFIG)
    merge_into(base, [lora_files.read_lora(final / "lora")])
    with pytest.raises(CheckpointError, match=r"is merged into .*student\.safetensors already, says lora/ beside it"):
        merge_into(student, [lora_files.read_lora(adapter(tmp_path / "copy", 1))])


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


def test_a_lora_that_is_not_finite_is_not_merged(zoo, teacher, tmp_path):
    name = "blocks.0.attn1.to_q"
    halves = {f"{name}.lora_A.weight": torch.ones(2, 24), f"{name}.lora_B.weight": torch.full((24, 2), float("nan"))}
    save_file(halves, tmp_path / "x.safetensors")
    code, out, err = zoo("import", "wan_1.3b", "--lora", tmp_path / "x.safetensors")
    assert (code, out) == (2, "")
    assert f"x.safetensors: {name}.weight, lora_B: 48 of its 48 numbers are NaN or infinite" in err
    assert not (tmp_path / "all" / "wan_1.3b-merged").exists()


def test_a_lora_that_does_not_fit_leaves_nothing(zoo, teacher, tmp_path):
    save_file(
        {"unet.lora_A.weight": torch.ones(2, 3), "unet.lora_B.weight": torch.ones(3, 2)}, tmp_path / "x.safetensors"
    )
    code, _, err = zoo("import", "wan_1.3b", "--lora", tmp_path / "x.safetensors")
    assert code == 2
    assert "1 of 1 pairs match no layer" in err
    assert not (tmp_path / "all" / "wan_1.3b-merged").exists()


# --- verify


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

"""`astro zoo import --lora`: what is merged, what is remembered, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from released_layouts import (
    CONFIG,
    forward,
    network,
)
from safetensors.torch import save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models import lora, lora_files
from astro_cli.models.checkpoint import into, load_transformer
from astro_cli.models.merged import merge_into

ONE = "diffusion_pytorch_model.safetensors"


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
    assert json.loads((folder / "manifest.json").read_text())["loras"][0]["pairs"] == 10 * CONFIG.num_layers
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

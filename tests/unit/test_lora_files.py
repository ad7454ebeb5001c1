"""LoRA files: every layout gives the same merged network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lora_layouts import ALPHA, BASE, LAYOUTS, RANK, UNET, base_state, loaded, peft_folder
from released_layouts import CONFIG, forward, network
from safetensors.torch import save_file

from astro_cli.models.lora_files import read_lora
from astro_cli.models.lora_merge import merge_loras

pytestmark = pytest.mark.usefixtures("nowhere")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_merges_to_the_adapted_network(layout, adapted, state, tmp_path):
    write, nesting = LAYOUTS[layout]
    found = read_lora(write(tmp_path, state))
    assert found.nesting == nesting
    assert len(found.pairs) == 10 * CONFIG.num_layers
    merged = loaded(merge_loras(base_state(adapted), [found]))
    assert not torch.allclose(forward(merged), forward(loaded(base_state(adapted))), atol=1e-4)
    torch.testing.assert_close(forward(merged), forward(adapted), atol=1e-5, rtol=1e-5)


def test_a_released_lora_is_found_by_name(monkeypatch, state, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    path = LAYOUTS["LongLive lora.pt, nested"][0](tmp_path, state)
    assert read_lora("longlive_lora").source == path


def test_merging_by_hand(tmp_path):
    # W 0, A ones (2 x 3), B 2 ones (2 x 2): B A = 2 (1 + 1) = 4; alpha 1 over rank 2 halves it; half of the adapter: 1
    path = tmp_path / "x.safetensors"
    save_file(
        {"l.lora_A.weight": torch.ones(2, 3), "l.lora_B.weight": torch.full((2, 2), 2.0), "l.alpha": torch.tensor(1.0)},
        path,
    )
    merged = merge_loras(
        {"l.weight": torch.zeros(2, 3), "l.bias": torch.zeros(2)}, [replace(read_lora(path), strength=0.5)]
    )
    assert torch.equal(merged["l.weight"], torch.ones(2, 3))
    assert torch.equal(merged["l.bias"], torch.zeros(2))


# Layers outside the blocks, by the two layouts' names and as kohya flattens them.
OUTSIDE = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "patch_embedding": "patch_embedding",
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("layer", OUTSIDE)
def test_layers_outside_the_blocks(layer, flat, tmp_path):
    base, name = network().state_dict(), f"{OUTSIDE[layer]}.weight"
    rng = torch.Generator().manual_seed(5)
    out, *inner = base[name].shape
    a, b = torch.randn(2, *inner, generator=rng), torch.randn(out, 2, *[1] * (len(inner) - 1), generator=rng)
    for key in (layer, OUTSIDE[layer]):
        written = f"lora_unet_{key.replace('.', '_')}" if flat else f"{UNET}{key}"
        save_file(
            {f"{written}.lora_down.weight": a, f"{written}.lora_up.weight": b, f"{written}.alpha": torch.tensor(1.0)},
            tmp_path / "x.safetensors",
        )
        merged = merge_loras(base, [read_lora(tmp_path / "x.safetensors")])
        changed = {key for key in base if not torch.equal(merged[key], base[key])}
        assert changed == {name}
        expected = base[name] + 0.5 * torch.einsum("or,r...->o...", b.flatten(1), a)  # alpha 1 over rank 2
        torch.testing.assert_close(merged[name], expected)


def test_differences_are_added_to_weights_biases_and_modulation(tmp_path):
    base = network().state_dict()
    shapes = {
        "blocks.1.self_attn.norm_q.diff": "blocks.1.attn1.norm_q.weight",
        "blocks.1.cross_attn.o.diff_b": "blocks.1.attn2.to_out.0.bias",
        "blocks.1.ffn.0.diff": "blocks.1.ffn.net.0.proj.weight",
        "blocks.1.norm3.diff_b": "blocks.1.norm2.bias",
        "blocks.1.diff_m": "blocks.1.scale_shift_table",
        "head.diff_m": "scale_shift_table",
        "head.head.diff_b": "proj_out.bias",
        "time_projection.1.diff_b": "condition_embedder.time_proj.bias",
    }
    rng = torch.Generator().manual_seed(5)
    added = {key: torch.randn(base[name].shape, generator=rng) for key, name in shapes.items()}
    halves = {
        f"{UNET}blocks.1.ffn.0.lora_A.weight": torch.ones(1, 24),
        f"{UNET}blocks.1.ffn.0.lora_B.weight": torch.ones(40, 1),
    }
    save_file({f"{UNET}{key}": value for key, value in added.items()} | halves, tmp_path / "x.safetensors")
    merged = merge_loras(base, [replace(read_lora(tmp_path / "x.safetensors"), strength=0.5)])
    for key, name in shapes.items():
        both = 1.0 if key == "blocks.1.ffn.0.diff" else 0.0  # B A is a matrix of ones
        torch.testing.assert_close(merged[name], base[name] + 0.5 * (added[key] + both))
    untouched = base.keys() - set(shapes.values())
    assert all(torch.equal(merged[key], base[key]) for key in untouched)


@pytest.mark.parametrize(("rslora", "root"), [(False, 1.0), (True, 0.5)])
def test_ranks_and_alphas_by_layer(rslora, root, tmp_path):
    # k has rank 8 and alpha 16, q the config's 4 and 6: scales 16 / 8 and 6 / 4, with rslora 16 / sqrt 8 and 6 / sqrt 4
    ranks = {"blocks.0.attn1.to_q": 4, "blocks.0.attn1.to_k": 8}
    tensors = {
        f"{BASE}{layer}.lora_{half}.weight": torch.ones((rank, 24) if half == "A" else (24, rank))
        for layer, rank in ranks.items()
        for half in "AB"
    }
    patterns = {"rank_pattern": {"to_k": 8}, "alpha_pattern": {r"blocks\.\d+\.attn1\.to_k": 16}}
    found = read_lora(peft_folder(tmp_path / "p", tensors, safe=True, use_rslora=rslora, **patterns))
    assert found.pairs["blocks.0.attn1.to_k"].scale == pytest.approx(16 / 8**root)
    assert found.pairs["blocks.0.attn1.to_q"].scale == pytest.approx(ALPHA / RANK**root)
    base = network().state_dict()
    merged = merge_loras(base, [found])
    key = "blocks.0.attn1.to_k.weight"
    torch.testing.assert_close(merged[key], base[key] + 8 * 16 / 8**root)  # a product of ones of rank 8 is 8


def test_merging_is_done_in_float32(tmp_path):
    # 300 times 0.01 is 3; bfloat16's step at 256 is 2, so adding in bfloat16 one by one would leave 256
    path = tmp_path / "x.safetensors"
    a, b = torch.full((300, 1), 0.01, dtype=torch.bfloat16), torch.ones(1, 300, dtype=torch.bfloat16)
    save_file({"l.lora_A.weight": a, "l.lora_B.weight": b}, path)
    weight = torch.full((1, 1), 256.0, dtype=torch.bfloat16)
    found = merge_loras({"l.weight": weight}, [read_lora(path)])["l.weight"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, (256.0 + a.float().sum()).to(torch.bfloat16).view(1, 1))
    assert found.item() == 260.0  # 259 lies between 258 and 260; ties go to the even one
    assert weight.item() == 256.0

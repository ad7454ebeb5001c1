"""LoRA files: every layout gives the same merged network, ours load into peft and diffusers, a LoRA that does not fit
is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released_layouts import CONFIG, State, diffusers_model, forward, network, original_name, write_pickle
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models import lora, lora_files, weights
from astro_cli.models.lora_files import read_lora
from astro_cli.models.lora_merge import merge_loras
from astro_cli.models.wan.transformer import CausalWan

RANK, ALPHA = 4, 6.0  # scale 1.5


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))


@pytest.fixture
def adapted() -> CausalWan:
    """A network with a trained adapter."""
    model = network()
    lora.add_adapters(model, RANK, ALPHA, 0.0, ("default",), torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(3)
    for value in lora.adapter_state(model, "default").values():
        value.data += 0.1 * torch.randn(value.shape, generator=rng)
    return model


@pytest.fixture
def state(adapted) -> State:
    return {key: value.detach().clone() for key, value in lora.adapter_state(adapted, "default").items()}


def renamed(
    state: State,
    prefix: str = "",
    a: str = "lora_A",
    b: str = "lora_B",
    original: bool = True,
    alpha: float | None = None,
) -> State:
    """An adapter under other names; `alpha` adds each layer's own."""
    found: State = {}
    for key, value in state.items():
        layer, part = key.rsplit(".lora_", 1)
        name = prefix + (original_name(f"{layer}.weight").removesuffix(".weight") if original else layer)
        found[f"{name}.{a if part.startswith('A') else b}.weight"] = value.contiguous()
        if alpha is not None:
            found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


def half_named(state: State) -> State:
    return renamed(state, a="lora_down", b="lora_up", alpha=ALPHA)


def kohya(state: State, original: bool = True) -> State:
    flat = renamed(state, a="lora_down", b="lora_up", original=original, alpha=ALPHA)
    return {
        f"lora_unet_{key.partition('.lora_')[0].partition('.alpha')[0].replace('.', '_')}{tail(key)}": value
        for key, value in flat.items()
    }


def tail(key: str) -> str:
    return key[key.rindex(".lora_") :] if ".lora_" in key else ".alpha"


def scaled(state: State) -> State:
    """alpha / rank folded into B, for layouts that carry no alpha."""
    return {key: value * (ALPHA / RANK if ".lora_B." in key else 1.0) for key, value in state.items()}


def peft_folder(at: Path, tensors: State, *, safe: bool, **more) -> Path:
    at.mkdir()
    save_file(tensors, at / "adapter_model.safetensors") if safe else torch.save(tensors, at / "adapter_model.bin")
    (at / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", **more})
    )
    return at


def saved(path: Path, tensors: State) -> Path:
    save_file(tensors, path)
    return path


BASE, UNET = "base_model.model.", "diffusion_model."
LAYOUTS: dict[str, tuple[Callable[[Path, State], Path], str]] = {
    "peft folder, original names": (lambda at, s: peft_folder(at / "p", renamed(s, BASE), safe=True), "flat"),
    "peft folder, diffusers names": (
        lambda at, s: peft_folder(at / "p", renamed(s, BASE, original=False), safe=True),
        "flat",
    ),
    "Astrolabe checkpoint, adapter_model.bin": (
        lambda at, s: peft_folder(at / "lora", renamed(s, BASE), safe=False),
        "flat",
    ),
    "LongLive lora.pt, nested": (
        lambda at, s: write_pickle(
            at / "LongLive-1.3B" / "models" / "lora.pt",
            {
                "generator_lora": renamed(scaled(s), BASE),
                "critic_lora": {"x": torch.zeros(1)},
                "step": 3,
            },
        ),
        "generator_lora",
    ),
    "LongLive lora.pt, flat": (lambda at, s: write_pickle(at / "lora.pt", renamed(scaled(s), BASE + "model.")), "flat"),
    "diffusers file without header": (
        lambda at, s: saved(at / "x.safetensors", renamed(scaled(s), "transformer.", original=False)),
        "flat",
    ),
    "diffusion_model, alpha per layer": (
        lambda at, s: saved(at / "x.safetensors", renamed(s, UNET, alpha=ALPHA)),
        "flat",
    ),
    "diffusion_model, down and up": (
        lambda at, s: saved(at / "x.safetensors", renamed(s, UNET, "lora_down", "lora_up", alpha=ALPHA)),
        "flat",
    ),
    "kohya": (lambda at, s: saved(at / "x.safetensors", kohya(s)), "flat"),
    "kohya, dots behind the block": (
        lambda at, s: saved(
            at / "x.safetensors",
            {f"lora_unet_{key.replace('blocks.', 'blocks_', 1)}": value for key, value in half_named(s).items()},
        ),
        "flat",
    ),
    "kohya, diffusers names": (
        lambda at, s: saved(at / "x.safetensors", kohya(s, original=False)),
        "flat",
    ),
    "an adapter's name in the keys, module. before them": (
        lambda at, s: saved(
            at / "x.safetensors",
            {
                f"module.{key.removesuffix('.weight')}.my_adapter.weight": value
                for key, value in renamed(scaled(s), "pipe.dit.").items()
            },
        ),
        "flat",
    ),
    "rslora": (
        lambda at, s: peft_folder(at / "p", renamed(s, BASE), safe=True, use_rslora=True, lora_alpha=ALPHA / RANK**0.5),
        "flat",
    ),
    "alpha pattern": (
        lambda at, s: peft_folder(
            at / "p", renamed(s, BASE), safe=True, lora_alpha=99.0, alpha_pattern={"[qkvo]": ALPHA, r"ffn\.[02]": ALPHA}
        ),
        "flat",
    ),
}


def base_state(model: CausalWan) -> State:
    return {key.replace(".base_layer", ""): value for key, value in model.state_dict().items() if ".lora_" not in key}


def loaded(state) -> CausalWan:
    model = network(9)
    model.load_state_dict(dict(state))
    return model


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


def test_a_difference_that_fits_nothing_is_refused(tmp_path):
    save_file({"blocks.0.k_img.diff_b": torch.ones(2)}, tmp_path / "x.safetensors")
    text = refusal(tmp_path / "x.safetensors", network().state_dict())
    assert "1 of 1 changes match no layer (0 do): found blocks.0.k_img.bias" in text
    assert "it is a LoRA of an image-to-video model" in text
    save_file({"blocks.0.self_attn.q.diff_b": torch.ones(2)}, tmp_path / "x.safetensors")
    text = refusal(tmp_path / "x.safetensors", network().state_dict())
    assert "blocks.0.attn1.to_q.bias: it is (2,), expected (24,)" in text


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


# --- writing


def test_peft_loads_what_is_written(adapted, state, tmp_path):
    from peft import LoraConfig, set_peft_model_state_dict
    from peft.mapping import inject_adapter_in_model

    lora_files.save_peft(tmp_path, state, RANK, ALPHA, lora.TARGETS)
    fresh = loaded(base_state(adapted))
    inject_adapter_in_model(LoraConfig.from_pretrained(str(tmp_path)), fresh)
    result = set_peft_model_state_dict(fresh, load_file(tmp_path / "adapter_model.safetensors"))
    assert not result.unexpected_keys
    torch.testing.assert_close(forward(fresh), forward(adapted), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def diffusers_forward(model) -> torch.Tensor:
    rng = torch.Generator().manual_seed(7)
    text = torch.randn(1, CONFIG.text_len, CONFIG.text_dim, generator=rng)
    x = torch.randn(1, 2, CONFIG.in_channels, 4, 4, generator=rng)
    return model(x.transpose(1, 2), torch.tensor([400.0]), text).sample.transpose(1, 2)


@pytest.mark.parametrize("through", ["load_lora_adapter", "load_lora_weights"])
def test_diffusers_loads_what_is_written(through, adapted, state, tmp_path):
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    lora_files.save_diffusers(tmp_path, state, RANK, ALPHA, lora.TARGETS)
    theirs = diffusers_model(base_state(adapted))
    torch.testing.assert_close(diffusers_forward(theirs), forward(loaded(base_state(adapted))), atol=1e-5, rtol=1e-5)
    if through == "load_lora_adapter":
        theirs.load_lora_adapter(str(tmp_path), use_safetensors=True)
    else:
        nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
        WanPipeline(transformer=theirs, scheduler=UniPCMultistepScheduler(), **nothing).load_lora_weights(str(tmp_path))
    torch.testing.assert_close(diffusers_forward(theirs), forward(adapted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("save", [lora_files.save_peft, lora_files.save_diffusers])
def test_what_is_written_is_read_again(save, adapted, state, tmp_path):
    save(tmp_path, state, RANK, ALPHA, lora.TARGETS)
    found = read_lora(tmp_path)
    assert {pair.scale for pair in found.pairs.values()} == {ALPHA / RANK}
    torch.testing.assert_close(
        forward(loaded(merge_loras(base_state(adapted), [found]))), forward(adapted), atol=1e-5, rtol=1e-5
    )


# --- what does not fit


def refusal(source: Path, base: State | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        merge_loras(base or {}, [read_lora(source)])
    return str(caught.value)


def test_a_lora_without_a_matching_layer_says_what_it_expected(adapted, tmp_path):
    save_file(
        {"unet.down.0.lora_A.weight": torch.ones(2, 3), "unet.down.0.lora_B.weight": torch.ones(3, 2)},
        tmp_path / "x.safetensors",
    )
    text = refusal(tmp_path / "x.safetensors", base_state(adapted))
    assert "1 of 1 pairs match no layer (0 do): found unet.down.0; expected condition_embedder." in text


def test_a_lora_with_some_strange_layers_is_refused(adapted, state, tmp_path):
    deeper = {key.replace("blocks.2.", "blocks.7."): value for key, value in state.items()}
    text = refusal(saved(tmp_path / "x.safetensors", renamed(deeper, UNET)), base_state(adapted))
    assert "10 of 30 pairs match no layer (20 do): found blocks.7.attn1.to_k, blocks.7.attn1.to_out.0" in text


def test_a_lora_of_another_width_is_refused(adapted, tmp_path):
    name = "blocks.0.attn1.to_q"
    save_file(
        {f"{name}.lora_A.weight": torch.ones(2, 30), f"{name}.lora_B.weight": torch.ones(24, 2)},
        tmp_path / "x.safetensors",
    )
    assert f"{name}: B A is (24, 30), expected (24, 24)" in refusal(tmp_path / "x.safetensors", base_state(adapted))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"l.lora_A.weight": torch.ones(2, 3)}, "l: half a pair: found only a"),
        ({"l.lora_A.weight": torch.ones(2, 3), "l.lora_B.weight": torch.ones(3, 5)}, "A is (2, 3) and B is (3, 5)"),
        (
            {"l.lora_A.weight": torch.ones(2, 3), "l.dora_scale": torch.ones(2)},
            "a DoRA adapter, expected a plain LoRA: 1 of 2 tensors are no LoRA parts: l.dora_scale",
        ),
        ({"l.lokr_w1": torch.ones(2)}, "a LoKr adapter, expected a plain LoRA"),
        ({"l.hada_w1_a": torch.ones(2)}, "a LoHa adapter, expected a plain LoRA"),
        (
            {f"l.lora_{half}.{name}.weight": torch.ones(2, 2) for half in "AB" for name in ("first", "second")},
            "holds 2 adapters: first, second, expected one",
        ),
        ({"blocks.0.attn1.to_q.weight": torch.ones(2, 3)}, "1 of 1 tensors are no LoRA parts"),
        (
            {f"{name}.lora_A.weight": torch.ones(2, 2) for name in ("blocks.0.attn1.to_q", "blocks.0.self_attn.q")},
            "one layer under two names",
        ),
    ],
)
def test_what_is_no_lora_is_refused(tensors, says, tmp_path):
    save_file(tensors, tmp_path / "x.safetensors")
    assert says in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"use_dora": True}, "use_dora: found True: a DoRA adapter, expected a plain LoRA"),
        ({"bias": "all"}, "bias: found 'all'"),
        ({"peft_type": "LOKR"}, "peft_type: found 'LOKR'"),
        ({"lora_alpha": "big"}, "lora_alpha: found 'big', expected a number"),
        ({"lora_alpha": True}, "lora_alpha: found True, expected a number"),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern: found '(', no pattern"),
        ({"alpha_pattern": [3]}, "alpha_pattern: found a list, expected an object"),
    ],
)
def test_other_adapters_are_refused(more, says, state, tmp_path):
    assert says in refusal(peft_folder(tmp_path / "p", renamed(state, BASE), safe=True, **more))


def test_a_folder_without_a_lora_is_refused(tmp_path):
    assert "not a LoRA folder: found no tensor file, expected adapter_model.safetensors" in refusal(tmp_path)


def test_equal_adapters_are_equal_files(tmp_path):
    """The library orders a header's metadata as a hash table does, anew for each file."""
    state = {f"blocks.0.ffn.net.2.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    metadata = {f"key {number}": 'é\n"' for number in range(8)}
    written = []
    for name in ("a", "b"):
        lora_files.save_diffusers(tmp_path / name, state, 2, 2.0, "x")
        weights.write(tmp_path / f"{name}.safetensors", state, metadata)
        files = (tmp_path / name / "pytorch_lora_weights.safetensors", tmp_path / f"{name}.safetensors")
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", **metadata}
        assert torch.equal(file.get_tensor("blocks.0.ffn.net.2.lora_A.weight"), torch.ones(2, 2))

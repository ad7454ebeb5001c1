"""One adapter in every layout that is read. A helper of tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from released_layouts import State, network, original_name, write_pickle
from safetensors.torch import save_file

from astro_cli.models.wan.transformer import CausalWan

RANK, ALPHA = 4, 6.0  # scale 1.5


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

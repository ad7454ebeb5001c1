"""Tiny random weights of DreamSim's ensemble in the released files' layout. A helper of tests.

Numbers come from torch's own generator by name order, so that the recordings in tests/golden/dreamsim.safetensors were
made with the same ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from eval.networks.dreamsim_names import CLIP, CONFIG, OPEN_CLIP, WEIGHTS

WIDTH, FEATURES, GRID, PATCH, RANK, ALPHA = 64, 16, 14, 16, 4, 8.0
DEPTHS = {"dino": 12, "clip": 2, "open_clip": 2}  # the package reads DINO's twelfth block
State = dict[str, torch.Tensor]


def _block(index: int) -> dict[str, tuple[int, ...]]:
    w = WIDTH
    one = {
        "norm1.weight": (w,),
        "norm1.bias": (w,),
        "norm2.weight": (w,),
        "norm2.bias": (w,),
        "attn.qkv.weight": (3 * w, w),
        "attn.qkv.bias": (3 * w,),
        "attn.proj.weight": (w, w),
        "attn.proj.bias": (w,),
        "mlp.fc1.weight": (4 * w, w),
        "mlp.fc1.bias": (4 * w,),
        "mlp.fc2.weight": (w, 4 * w),
        "mlp.fc2.bias": (w,),
    }
    return {f"blocks.{index}.{name}": shape for name, shape in one.items()}


def random_state(shapes: dict[str, tuple[int, ...]], seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.15 * torch.randn(shape, generator=generator) for name, shape in sorted(shapes.items())}
    return {name: value + 1 if "norm" in name and name.endswith("weight") else value for name, value in state.items()}


def network_state(name: str) -> State:
    """One of the three networks in DINO's names; the two CLIPs with `pos_drop` and `proj`."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + GRID**2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for index in range(DEPTHS[name]):
        shapes |= _block(index)
    if name != "dino":
        shapes |= {"pos_drop.weight": (WIDTH,), "pos_drop.bias": (WIDTH,), "proj": (WIDTH, FEATURES)}
    return random_state(shapes, list(DEPTHS).index(name))


def adapter_state() -> State:
    """peft's names, of qkv in every block of the three."""
    shapes: dict[str, tuple[int, ...]] = {}
    for branch, depth in enumerate(DEPTHS.values()):
        for index in range(depth):
            layer = f"base_model.model.extractor_list.{branch}.model.blocks.{index}.attn.qkv"
            shapes |= {f"{layer}.lora_A.weight": (RANK, WIDTH), f"{layer}.lora_B.weight": (3 * WIDTH, RANK)}
    return random_state(shapes, 3)


def write(folder: Path, dino: Path) -> None:
    """The unpacked archive at `folder`, DINO's backbone at `dino`."""
    (folder / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    dino.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network_state("dino"), dino)
    for name, file in (("clip", CLIP), ("open_clip", OPEN_CLIP)):
        torch.save({"state_dict": network_state(name)}, folder / file)
    save_file(adapter_state(), folder / WEIGHTS[0])
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.3,
        "bias": "none",
        "target_modules": ["qkv"],
    }
    (folder / CONFIG).write_text(json.dumps(config))

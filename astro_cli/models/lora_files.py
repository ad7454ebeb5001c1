"""LoRA files: read in peft's, diffusers' and kohya's layouts and as released, merged into weights, written for peft and
diffusers.

Several adapters over one network are in `lora`.
Source: the file layouts of peft, diffusers and kohya, and LongLive's released `lora.pt`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key

from astro_cli.config.errors import CheckpointError
from astro_cli.models import nesting, weights
from astro_cli.models.tensor_files import PICKLES, SUFFIXES, LazyState, LazyTensor, header, open_file, some
from astro_cli.models.wan import keys
from astro_cli.zoo.places import locate

PREFIXES = ("base_model.model.", "transformer.", *keys.PREFIXES)
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
HEADER = "lora_adapter_metadata"  # where diffusers keeps the adapter's config in a file's header
PART = re.compile(r"^(?P<layer>.+?)\.(?:(?P<a>lora_A|lora_down)|(?P<b>lora_B|lora_up))(?:\.default)?\.weight$")
KOHYA = re.compile(r"^lora_unet_blocks_(\d+)_(?:(self_attn|cross_attn)_([qkvo])|(ffn)_([02]))\.")
PLAIN = ("bias", "none")  # what `bias` of an adapter config must be: no other weights change


@dataclass(frozen=True)
class Pair:
    """One layer's A (rank, in) and B (out, rank); the layer's weight changes by scale B A."""

    a: LazyTensor
    b: LazyTensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]


@dataclass(frozen=True)
class Lora:
    """An adapter as read: pairs by the layer's diffusers name, the file they come from, the nesting taken."""

    pairs: dict[str, Pair]
    source: Path
    nesting: str


def read_lora(source: str | Path) -> Lora:
    """An adapter from a peft folder, a diffusers file or folder, kohya's layout, or a released `lora.pt`; by path or
    known name.

    The scale is alpha / rank (alpha / sqrt(rank) with rslora): alpha from the layer's own entry, the adapter config or
    the file's header, else alpha = rank.

    Raises:
        CheckpointError: missing, unsafe, no LoRA, half a pair, or parts of another method (DoRA, bias, full
            differences).
    """
    file = _pick(locate(source))
    tensors, nested = nesting.unwrap(open_file(file), nesting.LORA_FIRST, file, "is it a LoRA?")
    config = _config(file)
    parts: dict[str, dict[str, LazyTensor]] = {}
    foreign = []
    for key, tensor in tensors.items():
        layer, part = _place(key)
        if part is None:
            foreign.append(key)
        elif part in parts.setdefault(layer, {}):
            raise CheckpointError(file, key, "a second tensor for this part of the layer")
        else:
            parts[layer][part] = tensor
    if foreign:
        what = (
            f"{len(foreign)} of {len(tensors)} tensors are no LoRA parts: {some(foreign)}; expected lora_A, "
            "lora_B (lora_down, lora_up), alpha"
        )
        raise CheckpointError(file, "", what, hint="DoRA, LoKr, biases and full differences are not read")
    named = {keys.to_diffusers(f"{layer}.weight").removesuffix(".weight"): layer for layer in parts}
    if len(named) < len(parts):
        raise CheckpointError(file, "", "one layer under two names: original and diffusers' names are mixed")
    return Lora({name: _pair(layer, parts[layer], config, file) for name, layer in named.items()}, file, nested)


def _pick(path: Path) -> Path:
    if path.is_file():
        return path
    named = [path / name for name in (*PEFT_FILES, DIFFUSERS_FILE) if (path / name).is_file()]
    other = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if named or len(other) == 1:
        return (named or other)[0]
    found = some([file.name for file in other]) or "no tensor file"
    raise CheckpointError(
        path, "", f"not a LoRA folder: found {found}, expected {', '.join((*PEFT_FILES, DIFFUSERS_FILE))}"
    )


def _config(file: Path) -> dict[str, Any]:
    """peft's config of the adapter, from the folder or the file's header; empty where there is none."""
    beside = file.parent / ADAPTER_CONFIG
    try:
        if beside.is_file() and file.name in PEFT_FILES:
            config = json.loads(beside.read_text(encoding="utf-8"))
        elif file.suffix not in PICKLES:
            stored = json.loads(header(file).get(HEADER, "{}"))
            config = {key.removeprefix("transformer."): value for key, value in stored.items()}
        else:
            config = {}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(file, ADAPTER_CONFIG, f"no readable config: {error}") from error
    wrong = [key for key in ("use_dora", "modules_to_save", "lora_bias") if config.get(key)]
    wrong += [] if config.get("peft_type", "LORA") == "LORA" else ["peft_type"]
    wrong += [] if config.get(PLAIN[0], PLAIN[1]) == PLAIN[1] else [PLAIN[0]]
    if wrong:
        raise CheckpointError(file, wrong[0], f"found {config[wrong[0]]!r}, expected a plain LoRA without it")
    return config


def _place(key: str) -> tuple[str, str | None]:
    """The layer a tensor belongs to, as the file names it but for prefixes, and its part: a, b, alpha, or None for
    anything else.
    """
    if kohya := KOHYA.match(key):
        block, attention, leaf, feed, number = kohya.groups()
        key = f"blocks.{block}.{attention or feed}.{leaf or number}.{key[kohya.end() :]}"
    key = keys.plain(key, PREFIXES)
    if match := PART.match(key):
        return match["layer"], "a" if match["a"] else "b"
    return (key.removesuffix(".alpha"), "alpha") if key.endswith(".alpha") else (key, None)


def _pair(layer: str, parts: Mapping[str, LazyTensor], config: Mapping[str, Any], file: Path) -> Pair:
    if "a" not in parts or "b" not in parts:
        raise CheckpointError(file, layer, f"half a pair: found only {', '.join(sorted(parts))}, expected A and B")
    a, b = parts["a"], parts["b"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise CheckpointError(file, layer, f"A is {a.shape} and B is {b.shape}, expected (rank, in) and (out, rank)")
    rank = a.shape[0]
    if "alpha" in parts:
        return Pair(a, b, parts["alpha"].read().item() / rank)
    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), layer), config.get("lora_alpha", rank))
    if not isinstance(alpha, int | float):
        raise CheckpointError(file, "lora_alpha", f"found {alpha!r}, expected a number")
    return Pair(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


class MergedState(Mapping[str, torch.Tensor]):
    """A state dict with a LoRA folded in: a layer is read, changed and given out when it is asked for."""

    def __init__(self, state: Mapping[str, torch.Tensor], lora: Lora, scale: float) -> None:
        self.state, self.lora, self.scale = state, lora, scale

    def __getitem__(self, key: str) -> torch.Tensor:
        value = self.state[key]
        pair = self.lora.pairs.get(key.removesuffix(".weight")) if key.endswith(".weight") else None
        if pair is None:
            return value
        a, b = (part.read().to(value.device, torch.float32) for part in (pair.a, pair.b))
        return (value.float() + self.scale * pair.scale * (b @ a)).to(value.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


def merge_lora(state: Mapping[str, torch.Tensor], lora: Lora, scale: float = 1.0) -> Mapping[str, torch.Tensor]:
    """W + scale (alpha / rank) B A in float32, in W's dtype; a network with these weights has no adapter and no cost of
    one.

    Args:
        state: weights by diffusers' names; each is read when its layer is taken, and stays unchanged.
        scale: how much of the adapter; 1 is as trained.

    Returns:
        A mapping that computes a layer when it is asked for.

    Raises:
        CheckpointError: a pair that fits no layer of `state`, with what was found and what was expected.
    """
    shapes = state.tensors if isinstance(state, LazyState) else state
    linear = [key.removesuffix(".weight") for key in shapes if key.endswith(".weight") and len(shapes[key].shape) == 2]
    strange = sorted(lora.pairs.keys() - set(linear))
    if strange:
        matching = len(lora.pairs) - len(strange)
        what = (
            f"{len(strange)} of {len(lora.pairs)} pairs match no layer ({matching} do): found {some(strange)}; "
            f"expected {some(linear)}"
        )
        raise CheckpointError(lora.source, "", what, hint="is it a LoRA of this model and number of layers?")
    for layer, pair in lora.pairs.items():
        wanted = tuple(shapes[f"{layer}.weight"].shape)
        if pair.shape != wanted:
            raise CheckpointError(
                lora.source, layer, f"B A is {pair.shape}, expected {wanted}", hint="is it a LoRA of this model's size?"
            )
    return MergedState(state, lora, scale)


def save_peft(folder: Path, state: Mapping[str, torch.Tensor], rank: int, alpha: float, targets: str) -> None:
    """Write an adapter in peft's layout: adapter_model.safetensors and adapter_config.json.

    `state` is by `<layer>.lora_A.weight`.
    """
    weights.write(folder / PEFT_FILES[0], {f"{PREFIXES[0]}{key}": value for key, value in state.items()})
    weights.write_json(folder / ADAPTER_CONFIG, _adapter_config(rank, alpha, targets))


def save_diffusers(folder: Path, state: Mapping[str, torch.Tensor], rank: int, alpha: float, targets: str) -> None:
    """Write an adapter as diffusers does: a pipeline's `load_lora_weights` reads the folder, and so does
    `WanTransformer3DModel.load_lora_adapter` with `use_safetensors=True`.
    """
    config = {f"transformer.{key}": value for key, value in _adapter_config(rank, alpha, targets).items()}
    tensors = {f"transformer.{key}": value for key, value in state.items()}
    weights.write(folder / DIFFUSERS_FILE, tensors, {HEADER: json.dumps(config, indent=2, sort_keys=True)})


def _adapter_config(rank: int, alpha: float, targets: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
    }

"""LoRA files: read in peft's, diffusers' and kohya's layouts and as released, written for peft and diffusers.

`lora_merge` folds them into weights; several adapters over one network are in `lora`.
Source: the file layouts of peft, diffusers and kohya, and LongLive's released `lora.pt`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key

from astro_cli.config.durable import write_json
from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader, described
from astro_cli.config.parsing import ParseError, parse_json
from astro_cli.models import hashes, lora_keys, nesting, weights
from astro_cli.models.tensor_files import PICKLES, SUFFIXES, LazyTensor, header, open_file, some
from astro_cli.zoo.places import locate

PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
HEADER = "lora_adapter_metadata"  # where diffusers keeps the adapter's config in a file's header
PEFT_PREFIX, DIFFUSERS_PREFIX = "base_model.model.", "transformer."
PLAIN = ("bias", "none")  # what `bias` of an adapter config must be: no other weights change


@dataclass(frozen=True)
class Pair:
    """One layer's A (rank, in) and B (out, rank); the layer's weight changes by scale B A. Of a convolution A is
    (rank, in, kernel) and B (out, rank, 1).
    """

    a: LazyTensor
    b: LazyTensor
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.b.shape[0], *self.a.shape[1:]

    def change(self, where: Path, key: str, device: torch.device) -> torch.Tensor:
        """scale B A, float32, in the weight's shape.

        Raises:
            CheckpointError: numbers that are not finite.
        """
        a, b = (
            weights.checked(part.read(), where, f"{key}, lora_{half}").to(device, torch.float32)
            for half, part in (("A", self.a), ("B", self.b))
        )
        return self.scale * (b.flatten(1) @ a.flatten(1)).view(self.shape)


@dataclass(frozen=True)
class Lora:
    """An adapter as read.

    Attributes:
        pairs: by the layer's diffusers name.
        source: the file they come from.
        nesting: the part of the file that was taken.
        differences: what is added to parameters by themselves, by their diffusers names.
        strength: how much of it is merged; 1 is as trained, 0 nothing.
    """

    pairs: dict[str, Pair]
    source: Path
    nesting: str
    differences: dict[str, LazyTensor] = field(default_factory=dict)
    strength: float = 1.0

    def change(self, key: str, device: torch.device) -> torch.Tensor | None:
        """What is added to the parameter `key`, float32 and in its shape; None where it stays as it is.

        Raises:
            CheckpointError: numbers that are not finite.
        """
        pair = self.pairs.get(key.removesuffix(".weight")) if key.endswith(".weight") else None
        parts = [] if pair is None else [pair.change(self.source, key, device)]
        if (difference := self.differences.get(key)) is not None:
            parts.append(weights.checked(difference.read(), self.source, key).to(device, torch.float32))
        return self.strength * sum(parts[1:], parts[0]) if parts else None


def read_lora(source: str | Path) -> Lora:
    """An adapter from a peft folder, a diffusers file or folder, kohya's layout, or a released `lora.pt`; by path or
    known name.

    The scale is alpha / rank (alpha / sqrt(rank) with rslora): alpha from the layer's own entry, the adapter config or
    the file's header, else alpha = rank.

    Raises:
        CheckpointError: missing, unsafe, no LoRA, half a pair, several adapters, or parts of another method (DoRA,
            LoHa, LoKr).
    """
    file = _pick(locate(source))
    tensors, nested = nesting.unwrap(open_file(file), nesting.LORA_FIRST, file, "is it a LoRA?")
    config = _config(file)
    places = _places(tensors, file)
    parts: dict[str, dict[str, LazyTensor]] = {}
    differences: dict[str, LazyTensor] = {}
    for key, at in places.items():
        table, name = differences, lora_keys.parameter(at.layer, at.part)
        if at.part in ("a", "b", "alpha"):
            table, name = parts.setdefault(at.layer, {}), at.part
        if name in table:
            raise CheckpointError(file, key, "a second tensor for this part of the layer")
        table[name] = tensors[key]
    named = {lora_keys.parameter(layer).removesuffix(".weight"): layer for layer in parts}
    if len(named) < len(parts):
        raise CheckpointError(file, "", "one layer under two names: original and diffusers' names are mixed")
    pairs = {name: _pair(layer, parts[layer], config, file) for name, layer in named.items()}
    return Lora(pairs, file, nested, differences)


def _places(tensors: Mapping[str, LazyTensor], file: Path) -> dict[str, lora_keys.Place]:
    """Where each tensor belongs.

    Raises:
        CheckpointError: one that is no part of a LoRA, or parts of several adapters.
    """
    places = {key: lora_keys.place(key) for key in tensors}
    foreign = [key for key, at in places.items() if at is None]
    if foreign:
        method = next((method for key in foreign if (method := lora_keys.method_of(key))), "")
        what = f"a {method} adapter, expected a plain LoRA: " if method else ""
        what += (
            f"{len(foreign)} of {len(tensors)} tensors are no LoRA parts: {some(foreign)}; expected lora_A, "
            "lora_B (lora_down, lora_up), alpha, diff, diff_b, diff_m"
        )
        hint = "merge it with the tool that made it" if method else "is it a LoRA of Wan 2.1?"
        raise CheckpointError(file, "", what, hint=hint)
    parts = {key: at for key, at in places.items() if at is not None}
    adapters = sorted({at.adapter for at in parts.values() if at.part in ("a", "b")})
    if len(adapters) > 1:
        what = f"holds {len(adapters)} adapters: {some([name or '(no name)' for name in adapters])}, expected one"
        raise CheckpointError(file, "", what, hint="save the one that is meant by itself")
    return parts


def _pick(path: Path) -> Path:
    if path.is_file():
        return path
    named = [path / name for name in (*PEFT_FILES, DIFFUSERS_FILE) if (path / name).is_file()]
    other = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if named or len(other) == 1:
        return (named or other)[0]
    content = some([file.name for file in other]) or "no tensor file"
    raise CheckpointError(
        path, "", f"not a LoRA folder: found {content}, expected {', '.join((*PEFT_FILES, DIFFUSERS_FILE))}"
    )


def _config(file: Path) -> dict[str, Any]:
    """peft's config of the adapter, from the folder or the file's header; empty where there is none."""
    beside = file.parent / ADAPTER_CONFIG
    try:
        if beside.exists() and file.name in PEFT_FILES:
            config = Reader(CheckpointError, key=ADAPTER_CONFIG).table(beside)
        elif file.suffix not in PICKLES:
            stored = parse_json(header(file).get(HEADER, "{}"))
            if not isinstance(stored, dict):
                raise CheckpointError(file, HEADER, f"found {described(stored)}, expected an object")
            config = {key.removeprefix(DIFFUSERS_PREFIX): value for key, value in stored.items()}
        else:
            config = {}
    except ParseError as error:
        raise CheckpointError(file, ADAPTER_CONFIG, f"no readable config: {error}") from error
    if config.get("use_dora"):
        what = "found True: a DoRA adapter, expected a plain LoRA"
        raise CheckpointError(file, "use_dora", what, hint="merge it with the tool that made it")
    wrong = [key for key in ("modules_to_save", "lora_bias") if config.get(key)]
    wrong += [] if config.get("peft_type", "LORA") == "LORA" else ["peft_type"]
    wrong += [] if config.get(PLAIN[0], PLAIN[1]) == PLAIN[1] else [PLAIN[0]]
    if wrong:
        raise CheckpointError(file, wrong[0], f"found {config[wrong[0]]!r}, expected a plain LoRA without it")
    _check_patterns(config, file)
    return config


def _check_patterns(config: Mapping[str, Any], file: Path) -> None:
    """Raises: CheckpointError: patterns that are no table, or a key of it that is no regular expression."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(file, "alpha_pattern", f"found {described(patterns)}, expected an object or null")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise CheckpointError(file, "alpha_pattern", f"found {pattern[:40]!r}, no pattern: {error}") from error


def _pair(layer: str, parts: Mapping[str, LazyTensor], config: Mapping[str, Any], file: Path) -> Pair:
    if "a" not in parts or "b" not in parts:
        raise CheckpointError(file, layer, f"half a pair: found only {', '.join(sorted(parts))}, expected A and B")
    a, b = parts["a"], parts["b"]
    fits = min(len(a.shape), len(b.shape)) >= 2 and a.shape[0] == b.shape[1] and math.prod(b.shape[2:]) == 1
    if not fits or not a.shape[0]:
        raise CheckpointError(file, layer, f"A is {a.shape} and B is {b.shape}, expected (rank, in) and (out, rank)")
    rank = a.shape[0]
    if "alpha" in parts:
        stored = parts["alpha"].read()
        if stored.numel() != 1:
            raise CheckpointError(file, f"{layer}.alpha", f"is {tuple(stored.shape)}, expected one number")
        return Pair(a, b, _finite(stored.item(), file, f"{layer}.alpha") / rank)
    patterns = config.get("alpha_pattern") or {}
    alpha = _finite(patterns.get(get_pattern_key(list(patterns), layer), config.get("lora_alpha", rank)), file)
    return Pair(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _finite(alpha: Any, file: Path, key: str = "lora_alpha") -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < torch.finfo(torch.float32).max:
        raise CheckpointError(file, key, f"found {repr(alpha)[:40]}, expected a number that is finite")
    return float(alpha)


def content_hash(lora: Lora) -> str:
    """16 hex digits over what an adapter does, whatever its layout: layers, A, B and scale."""
    total = hashlib.sha256()
    rows = {name: (f"{pair.scale:.6g} {pair.shape}", (pair.a, pair.b)) for name, pair in lora.pairs.items()}
    rows |= {name: (f"{part.shape}", (part,)) for name, part in lora.differences.items()}
    for name, (facts, parts) in sorted(rows.items(), key=lambda row: row[0]):
        total.update(f"{name} {facts}".encode())
        for part in parts:
            total.update(part.read().float().contiguous().numpy().tobytes())
    return total.hexdigest()[: hashes.DIGEST_CHARACTERS]


def save_peft(folder: Path, state: Mapping[str, torch.Tensor], rank: int, alpha: float, targets: str) -> None:
    """Write an adapter in peft's layout: adapter_model.safetensors and adapter_config.json.

    `state` is by `<layer>.lora_A.weight`.
    """
    weights.write(folder / PEFT_FILES[0], {f"{PEFT_PREFIX}{key}": value for key, value in state.items()})
    write_json(folder / ADAPTER_CONFIG, _adapter_config(rank, alpha, targets))


def save_diffusers(folder: Path, state: Mapping[str, torch.Tensor], rank: int, alpha: float, targets: str) -> None:
    """Write an adapter as diffusers does: a pipeline's `load_lora_weights` reads the folder, and so does
    `WanTransformer3DModel.load_lora_adapter` with `use_safetensors=True`.
    """
    config = {f"{DIFFUSERS_PREFIX}{key}": value for key, value in _adapter_config(rank, alpha, targets).items()}
    tensors = {f"{DIFFUSERS_PREFIX}{key}": value for key, value in state.items()}
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

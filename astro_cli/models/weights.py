"""Weights on disk: safetensors beside a JSON card. Finds packaged bases, refuses damaged and foreign files. Unpickles nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from astro_cli.config.errors import CheckpointError, did_you_mean

PACKAGED = Path(__file__).resolve().parents[1] / "weights"


def packaged() -> list[str]:
    """Names of the bases that come with the package, e.g. "shapes/teacher"."""
    return sorted(path.relative_to(PACKAGED).with_suffix("").as_posix() for path in PACKAGED.rglob("*.safetensors"))


def find(name: str, role: str) -> Path:
    """A packaged base by name, a run folder (its `final/<role>.safetensors`), or a weights file.

    Raises:
        CheckpointError: nothing there, with the nearest packaged name.
    """
    path = Path(name)
    stems = (role,) if role in ("student", "codec") else (role, "student")  # a teacher or critic is what some run trained as its student
    in_folder = [folder / f"{stem}.safetensors" for stem in stems for folder in (path / "final", path)]
    candidates = (PACKAGED / f"{name}.safetensors", *in_folder, path)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise CheckpointError(name, f"final/{role}.safetensors", "not in this folder", hint="is the run finished? `--resume` continues it")
    raise CheckpointError(name, "", "no such weights", hint=f"{did_you_mean(name, packaged())}, or a run folder or .safetensors file")


def read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: truncated, or not safetensors.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(path, "", f"found a {path.suffix or 'file without ending'}, expected .safetensors", hint="pickles are not read")
    try:
        return load_file(path)
    except SafetensorError as error:
        size = path.stat().st_size
        hint = "copy the file again; it must be complete safetensors"
        raise CheckpointError(path, "", f"damaged or not safetensors ({size} bytes): {error}", hint=hint) from error


def load_into(module: nn.Module, path: Path) -> None:
    """Load a file into a module, every key and shape checked; values are cast to the module's dtype."""
    state, expected = read(path), module.state_dict()
    wrong = [f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
             for key in expected if key in state and state[key].shape != expected[key].shape]  # fmt: skip
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if wrong:
        what = f"another size: {wrong[0]} ({len(wrong)} tensors differ)"
        raise CheckpointError(path, wrong[0].split(" ")[0], what, hint="does the recipe's [model] match?")
    if missing or extra:
        what = "; ".join(f"{len(keys)} {word} (first: {keys[0]})" for word, keys in (("missing", missing), ("unexpected", extra)) if keys)
        raise CheckpointError(path, "", f"keys of another model: {what}", hint="does the recipe's [model] match?")
    module.load_state_dict(state)


def write(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write tensors atomically: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, temporary, metadata={"format": "pt"})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """Short sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

"""Weights on disk: safetensors beside a JSON card. Finds packaged bases, refuses damaged and foreign files, never
unpickles.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from astro_cli.config import pointers
from astro_cli.config.durable import written_whole
from astro_cli.config.errors import CheckpointError, did_you_mean
from astro_cli.config.files import check_regular
from astro_cli.models.wan.sizes import Shaped
from astro_cli.zoo import hub
from astro_cli.zoo.places import download_line

PACKAGED = Path(__file__).resolve().parents[1] / "weights"
HEADER_SIZE_BYTES = 8  # of a safetensors file: the length of its header, little-endian
MODEL_HINT = "does the recipe's [model] match?"
FINITE_HINT = "the file is damaged or its training diverged: copy it again, or take other weights"


def packaged() -> list[str]:
    """Names of the bases that come with the package, e.g. "shapes/teacher"."""
    return sorted(path.relative_to(PACKAGED).with_suffix("").as_posix() for path in PACKAGED.rglob("*.safetensors"))


def find(name: str, role: str) -> Path:
    """A packaged base by name, a run folder (its `final/<role>.safetensors`), a weights file, or a run on the hub that
    is in the Hugging Face cache.

    Raises:
        CheckpointError: nothing there, with the nearest packaged name.
    """
    path = Path(name)
    # A teacher or critic may be the student of another run.
    stems = (role,) if role in ("student", "codec") else (role, "student")
    hub_id = hub.parse(name)
    if hub_id is not None and not path.exists() and (place := hub.cached(hub_id)) is not None:
        path = place
    in_folder = [folder / f"{stem}.safetensors" for stem in stems for folder in (path / "final", path)]
    candidates = (PACKAGED / f"{name}.safetensors", *in_folder, path)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise CheckpointError(
            name, f"final/{role}.safetensors", "not in this folder", hint="is the run finished? `--resume` continues it"
        )
    line = "" if name.startswith("shapes/") else download_line(name)
    hint = f"{did_you_mean(name, packaged())}, or a run folder or .safetensors file"
    raise CheckpointError(name, "", "no such weights", hint=f"of the hub: {line}; else {hint}" if line else hint)


def read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: truncated, or not safetensors.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(
            path,
            "",
            f"found a {path.suffix or 'file without ending'}, expected .safetensors",
            hint="`astro zoo import` reads .pt",
        )
    check_regular(path, CheckpointError)
    try:
        return load_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    except SafetensorError as error:
        raise damaged(path, error) from error


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error that says a file cannot be opened."""
    return CheckpointError(
        path, "", f"cannot be read: {error.strerror or error}", hint="choose a file that can be read"
    )


def damaged(path: Path, error: Exception) -> CheckpointError:
    """The error that says a file is truncated, no safetensors, or only a pointer to them."""
    if pointers.is_pointer(path):
        return CheckpointError(path, "", pointers.WHAT, hint=pointers.HINT)
    what = f"damaged or not safetensors ({path.stat().st_size} bytes): {error}"
    return CheckpointError(path, "", what, hint="copy the file again; it must be complete safetensors")


def load_into(module: nn.Module, path: Path) -> None:
    """Load a file into a module, every key, shape and number checked; values are cast to the module's dtype."""
    state, own = read(path), module.state_dict()
    check_state(state, own, path)
    module.load_state_dict({key: checked(value, path, key, own[key].dtype) for key, value in state.items()})


def checked(value: torch.Tensor, where: Path, key: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor of weights as a network may use it: all of its numbers finite, also in `dtype` (None: its own). Every
    loader of weights passes its tensors through here.

    Raises:
        CheckpointError: NaN, infinity, or a number that `dtype` cannot hold.
    """
    if not finite(value):
        count = int((~value.isfinite()).sum())
        what = f"{count} of its {value.numel()} numbers are NaN or infinite"
        raise CheckpointError(where, key, what, hint=FINITE_HINT)
    if dtype is None or not value.is_floating_point():
        return value
    cast = value.to(dtype)
    if not finite(cast):
        name, limit = str(dtype).removeprefix("torch."), torch.finfo(dtype).max
        what = f"overflows {name}: found {float(value.abs().max()):.6g}, {name} ends at {limit:.6g}"
        raise CheckpointError(where, key, what, hint="use bfloat16 or float32")
    return cast


def finite(value: torch.Tensor) -> bool:
    """Without a copy: the extremes of a tensor are NaN or infinite where one of its numbers is."""
    if value.is_meta or not value.numel() or not value.is_floating_point():
        return True
    low, high = torch.aminmax(value)
    return bool(low.isfinite() & high.isfinite())


def differences(state: Mapping[str, Shaped], expected: Mapping[str, Shaped]) -> dict[str, list[str]]:
    """Names that are "missing", "unexpected" or of another size ("resized"), each in `expected`'s or alphabetic order;
    empty ones left out.
    """
    lists = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "resized": [key for key in expected if key in state and tuple(state[key].shape) != tuple(expected[key].shape)],
    }
    return {word: keys for word, keys in lists.items() if keys}


def check_state(
    state: Mapping[str, Shaped], expected: Mapping[str, Shaped], path: Path, hint: str = MODEL_HINT
) -> None:
    """Compare keys and shapes of tensors read from `path` with those of a module.

    Raises:
        CheckpointError: the first tensor of another size, or how many keys are missing or unexpected.
    """
    wrong = differences(state, expected)
    if "resized" in wrong:
        key, count = wrong["resized"][0], len(wrong["resized"])
        what = (
            f"another size: {key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)} ({count} "
            "tensors differ)"
        )
        raise CheckpointError(path, key, what, hint=hint)
    if wrong:
        what = "; ".join(f"{len(keys)} {word} (first: {keys[0]})" for word, keys in wrong.items())
        raise CheckpointError(path, "", f"keys of another model: {what}", hint=hint)


def write(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors whole and to the disk; equal tensors and `metadata`, which goes into the file's header, give equal
    bytes.

    Raises:
        OSError: the disk is full.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    try:
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt", **(metadata or {})})
            _sort_metadata(temporary)
            temporary.chmod(path.parent.stat().st_mode & 0o666)  # the library gives its files to their owner only
    except SafetensorError as error:  # the library hides the system's error number in its text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file's header into the order of their names: the library writes them in that
    of a hash table, another one in every process.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(HEADER_SIZE_BYTES), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size, "the same text in another order"
        file.seek(HEADER_SIZE_BYTES)
        file.write(text.ljust(size))

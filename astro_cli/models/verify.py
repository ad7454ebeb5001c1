"""Whether a checkpoint is whole: names, shapes, dtype, finite numbers, and sha256 against an import's manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from astro_cli.config.base import Config, validate
from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.models import hashes, weights
from astro_cli.models.checkpoint import expected, load_transformer
from astro_cli.models.tensor_files import LazyState, LazyTensor, open_safetensors, some
from astro_cli.models.wan.config import WanConfig
from astro_cli.zoo.places import MANIFEST

Report = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much there is
REQUIRED = ("config", "dtype", "tensors", "written")


class _Written(Config):
    """A file that an import wrote."""

    name: str
    bytes: int
    sha256: str


def _quiet(*_: object) -> None:
    pass


def problems(path: Path, report: Report = _quiet) -> list[str]:
    """What is wrong with an import folder or with a release as downloaded, one line each; none if it is whole.

    A release has no manifest: its names, shapes and numbers are checked, its bytes cannot be.

    Raises:
        CheckpointError: the manifest is not readable.
    """
    if not (path / MANIFEST).is_file():
        try:
            state = load_transformer(path).state
        except CheckpointError as error:
            return [_line(error)]
        return _not_finite(state, report)
    manifest = read_manifest(path)
    rows = {row["name"]: row for row in manifest["written"]}
    faults, tensors = _files(path, rows, report)
    return [*faults, *_tensors(manifest, tensors), *_not_finite(LazyState(tensors, path), report)]


def _line(error: CheckpointError) -> str:
    return ": ".join(part for part in (error.where, error.key, error.what) if part)


def _not_finite(state: Mapping[str, torch.Tensor], report: Report) -> list[str]:
    """The first tensor with a number that is NaN or infinite, and how many more there are."""
    wrong: list[str] = []
    for index, name in enumerate(sorted(state), 1):
        try:
            state[name]
        except CheckpointError as error:
            wrong.append(f"{name}: {error.what}")
        report("numbers", index, len(state))
    return wrong[:1] + ([f"{len(wrong) - 1} more tensors are not finite"] if len(wrong) > 1 else [])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises: CheckpointError: not JSON, or without what an import writes into it."""
    path = folder / MANIFEST
    hint = "import the checkpoint again"
    manifest = Reader(CheckpointError, what="not a readable manifest", hint=hint).table(path)
    try:
        lost = [key for key in REQUIRED if key not in manifest]
        validate(WanConfig, manifest.get("config"))
        rows = [validate(_Written, row) for row in manifest.get("written", [])]
        names = {row.name for row in rows}
    except (TypeError, ValidationError) as error:
        raise CheckpointError(path, "", f"not a readable manifest: {error}", hint=hint) from error
    if lost or len(names) < len(rows):
        raise CheckpointError(path, ", ".join(lost) or "written", "missing or incomplete", hint=hint)
    return manifest


def _files(folder: Path, rows: dict[str, dict[str, Any]], report: Report) -> tuple[list[str], dict[str, LazyTensor]]:
    """Problems of the files, and all tensors that can be read."""
    here = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {MANIFEST}
    wrong = [f"{name}: missing file" for name in sorted(rows.keys() - here)]
    wrong += [f"{name}: extra file, not in the manifest" for name in sorted(here - rows.keys())]
    tensors: dict[str, LazyTensor] = {}
    present = sorted(rows.keys() & here)
    for index, name in enumerate(present, 1):
        path = folder / name
        if path.stat().st_size != rows[name]["bytes"]:
            wrong.append(f"{name}: {path.stat().st_size} bytes, expected {rows[name]['bytes']}")
        elif hashes.sha256(path) != rows[name]["sha256"]:
            wrong.append(f"{name}: sha256 differs from the manifest's")
        if name.endswith(".safetensors"):
            try:
                tensors |= open_safetensors(path)
            except CheckpointError as error:
                wrong.append(f"{name}: {error.what}")
        report("files", index, len(present))
    return wrong, tensors


def _tensors(manifest: dict[str, Any], tensors: dict[str, LazyTensor]) -> list[str]:
    """Problems of names, shapes, dtypes and their number."""
    wanted = expected(validate(WanConfig, manifest["config"]))
    wrong = [
        f"{len(names)} tensors {word}: {some(names)}" for word, names in weights.differences(tensors, wanted).items()
    ]
    allowed = manifest["dtype"] if isinstance(manifest["dtype"], list) else [manifest["dtype"]]
    odd = sorted(name for name, tensor in tensors.items() if str(tensor.dtype).removeprefix("torch.") not in allowed)
    if odd:
        wrong.append(f"{len(odd)} tensors are not {' or '.join(allowed)}: {some(odd)}")
    if len(tensors) != manifest["tensors"]:
        wrong.append(f"{len(tensors)} tensors, the manifest says {manifest['tensors']}")
    return wrong

"""A run's checkpoints on disk: written whole, read back newest first, damaged ones passed over.

A checkpoint is a folder `checkpoints/<number>/` with `meta.json` and a safetensors file per group of tensors. It counts
on the rows that `metrics.jsonl` had when it was written: a run that resumes keeps them.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, ValidationError

from astro_cli.config.base import Config
from astro_cli.config.errors import CheckpointError
from astro_cli.config.problems import first_problem
from astro_cli.models import weights

KEEP = 2  # the newest may be damaged by the machine that died
META = "meta.json"


class Meta(Config):
    """Where a run stood: stages done, steps of the next one done, rows logged, and the groups of tensors there are
    (None: not listed).
    """

    stage: int = Field(ge=0)
    step: int = Field(ge=0)
    rows: int = Field(ge=0)
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint in memory: its folder, where the run stood, and tensors by group and name."""

    path: Path
    meta: Meta
    groups: dict[str, dict[str, torch.Tensor]]

    def group(self, name: str) -> dict[str, torch.Tensor]:
        """Raises: CheckpointError: the group is missing."""
        if name not in self.groups:
            raise CheckpointError(
                self.path, f"{name}.safetensors", "missing", hint="restore the file, or train again in a new --out"
            )
        return self.groups[name]


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first; one that is being written has another name."""
    return sorted(folder.glob("[0-9]*"))


def save(
    folder: Path, index: int, stage: int, step: int, rows: int, groups: dict[str, dict[str, torch.Tensor]]
) -> None:
    """Write checkpoint `index`, onto the disk before it has its name, and delete all but the newest `KEEP`."""
    path = folder / f"{index:08d}"
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, tensors in groups.items():
        weights.write(temporary / f"{name}.safetensors", tensors)
    weights.write_json(temporary / META, {"stage": stage, "step": step, "rows": rows, "groups": sorted(groups)})
    weights.sync(temporary)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)
    weights.sync(folder)
    for old in listed(folder)[:-KEEP]:
        shutil.rmtree(old)


def load_newest(folder: Path, metrics: Path) -> tuple[RunCheckpoint | None, list[CheckpointError]]:
    """The newest checkpoint that is whole and whose rows are all in `metrics`, None without any; and what is wrong with
    newer ones.

    Raises:
        CheckpointError: there are checkpoints and none can be used; names the newest one's fault.
    """
    faults: list[CheckpointError] = []
    logged = whole_rows(metrics)
    for path in reversed(listed(folder)):
        try:
            return _load(path, metrics, logged), faults
        except CheckpointError as error:
            faults.append(error)
    if faults:
        first = faults[0]
        what = f"{first.what}; no checkpoint of this run can be resumed"
        raise CheckpointError(first.where, first.key, what, hint="restore the file, or train again in a new --out")
    return None, faults


def whole_rows(metrics: Path) -> int:
    """Rows of metrics.jsonl before the first that is torn or damaged; none where there is no file."""
    if not metrics.is_file():
        return 0
    count = 0
    for line in metrics.read_bytes().splitlines(keepends=True):
        try:
            whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except ValueError:  # neither JSON nor text
            whole = False
        if not whole:
            break
        count += 1
    return count


def _load(path: Path, metrics: Path, logged: int) -> RunCheckpoint:
    meta = _meta(path / META)
    if logged < meta.rows:
        what = f"found {logged} whole rows, checkpoint {path.name} was written after {meta.rows}"
        raise CheckpointError(metrics, f"line {logged + 1}", what)
    files = {file.stem: file for file in sorted(path.glob("*.safetensors"))}
    for name in meta.groups or ():
        if name not in files:
            raise CheckpointError(path, f"{name}.safetensors", "missing")
    return RunCheckpoint(path, meta, {name: weights.read(file) for name, file in files.items()})


def _meta(path: Path) -> Meta:
    try:
        return Meta.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
    except ValidationError as error:
        raise CheckpointError(path, "", f"damaged: {first_problem(error).text}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(path, "", f"cannot be read: {error}") from error

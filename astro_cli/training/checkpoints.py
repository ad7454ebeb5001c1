"""A run's checkpoints on disk: written whole, read back newest first, damaged ones passed over.

A checkpoint is a folder `checkpoints/<number>/` with `meta.json` and a safetensors file per group of tensors, or a
folder of such files where its tensors are divided among processes (`training.sharded`). The meta data hold a checksum
of every file and of themselves. A checkpoint counts on the rows that `metrics.jsonl` had when it was written: a run
that resumes keeps them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import Field, ValidationError

from astro_cli.config import durable
from astro_cli.config.base import Config
from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.config.parsing import ParseError, parse_json
from astro_cli.config.problems import first_problem
from astro_cli.models import hashes, weights
from astro_cli.training import sharded

KEEP = 2  # the newest may be damaged by the machine that died
META = "meta.json"
CHECKSUM = "checksum"


class Meta(Config):
    """Where a run stood: stages done, steps of the next one done, rows logged.

    Attributes:
        files: sha256 of each file of tensors, by its path in the checkpoint.
        checksum: sha256 of the meta data without it.
        groups: the groups of tensors there are; earlier versions wrote them, and no checksums.
    """

    stage: int = Field(ge=0)
    step: int = Field(ge=0)
    rows: int = Field(ge=0)
    files: dict[str, str] | None = None
    checksum: str | None = None
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint: its folder, where the run stood, and tensors by group and name. Groups that were divided among
    processes are read when they are asked for.
    """

    path: Path
    meta: Meta
    groups: dict[str, dict[str, torch.Tensor]]
    divided: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the groups."""
        return (*self.groups, *self.divided)

    def group(self, name: str, like: Callable[[str], torch.Tensor | None] = lambda _: None) -> dict[str, torch.Tensor]:
        """The tensors of a group, each divided among processes as the one that `like` gives for its name.

        Raises:
            CheckpointError: the group is missing.
        """
        if name in self.divided:
            return sharded.read(self.path / name, like)
        if name not in self.groups:
            raise CheckpointError(
                self.path, f"{name}.safetensors", "missing", hint="restore the file, or train again in a new --out"
            )
        return {key: sharded.part(value, like(key)) for key, value in self.groups[name].items()}


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first; one that is being written has another name."""
    return sorted(folder.glob("[0-9]*"))


def save(
    folder: Path,
    stage: int,
    step: int,
    rows: int,
    groups: dict[str, dict[str, torch.Tensor]],
    accelerator: Accelerator | None = None,
) -> None:
    """Write a checkpoint, onto the disk before it has its name, and delete all but the newest `KEEP`.

    Args:
        accelerator: where tensors are divided among processes: all of them call this, and each writes its parts.
    """
    path = folder / _name(stage, rows)
    temporary = path.with_name(f".{path.name}.part")
    is_main = accelerator is None or accelerator.is_main_process
    divided = [name for name, tensors in groups.items() if any(map(sharded.is_divided, tensors.values()))]
    if is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name in groups.keys() - set(divided):
            weights.write(temporary / f"{name}.safetensors", groups[name])
    for name in divided:
        assert accelerator is not None, "tensors of several processes"
        accelerator.wait_for_everyone()
        sharded.write(temporary / name, groups[name])
    if accelerator is not None:
        accelerator.wait_for_everyone()
    if not is_main:
        return
    files = {file.relative_to(temporary).as_posix(): hashes.sha256(file) for file in _files(temporary)}
    for name in divided:
        for file in (temporary / name).iterdir():
            durable.sync(file)
        durable.sync(temporary / name)
    meta = {"stage": stage, "step": step, "rows": rows, "files": files}
    durable.write_json(temporary / META, meta | {CHECKSUM: _checksum(meta)})
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)
    durable.sync(folder)
    prune(folder)


def _files(path: Path) -> list[Path]:
    """Of tensors, in a checkpoint."""
    return sorted([*path.glob("*.safetensors"), *path.glob("*/*.safetensors")])


def prune(folder: Path) -> None:
    """Delete all but the newest `KEEP`."""
    for old in listed(folder)[:-KEEP]:
        shutil.rmtree(old)


def load_newest(
    folder: Path, metrics: Path, steps: Sequence[int]
) -> tuple[RunCheckpoint | None, list[CheckpointError]]:
    """The newest checkpoint that is whole and whose rows are all in `metrics`, None without any; and what is wrong with
    newer ones.

    Args:
        steps: of the run's stages, in order.

    Raises:
        CheckpointError: there are checkpoints and none can be used; names the newest one's fault.
    """
    faults: list[CheckpointError] = []
    logged = whole_rows(metrics)
    for path in reversed(listed(folder)):
        try:
            return _load(path, metrics, logged, steps), faults
        except CheckpointError as error:
            faults.append(error)
    if faults:
        first = faults[0]
        what = f"{first.what}; no checkpoint of this run can be resumed"
        raise CheckpointError(first.where, first.key, what, hint="restore the file, or train again in a new --out")
    return None, faults


def whole_rows(metrics: Path) -> int:
    """Rows of metrics.jsonl before the first that is torn or damaged; none where there is no file."""
    if not metrics.exists():
        return 0
    count = 0
    for line in Reader(CheckpointError).content(metrics).splitlines(keepends=True):
        try:
            whole = line.endswith(b"\n") and isinstance(parse_json(line), dict)
        except ParseError:
            whole = False
        if not whole:
            break
        count += 1
    return count


def _name(stage: int, rows: int) -> str:
    """Of a checkpoint's folder: there is one per step, and one more at the end of every stage."""
    return f"{rows + stage:08d}"


def _checksum(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _load(path: Path, metrics: Path, logged: int, steps: Sequence[int]) -> RunCheckpoint:
    meta = _meta(path / META)
    _check_position(path, meta, steps)
    if logged < meta.rows:
        what = f"found {logged} whole rows, checkpoint {path.name} was written after {meta.rows}"
        raise CheckpointError(metrics, f"line {logged + 1}", what)
    files = {file.relative_to(path).as_posix(): file for file in _files(path)}
    for name in meta.files if meta.files is not None else [f"{group}.safetensors" for group in meta.groups or ()]:
        if name not in files:
            raise CheckpointError(path, name, "missing")
    for name, file in files.items():
        if meta.files is not None and hashes.sha256(file) != meta.files.get(name):
            raise CheckpointError(path, name, "damaged: its bytes are not those that were written")
    plain = {file.stem: weights.read(file) for file in files.values() if file.parent == path}
    return RunCheckpoint(path, meta, plain, tuple({file.parent.name for file in files.values()} - {path.name}))


def _meta(path: Path) -> Meta:
    text = Reader(CheckpointError).text(path)
    try:
        meta = Meta.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise CheckpointError(path, "", f"damaged: {first_problem(error).text}") from error
    if meta.files is not None or meta.checksum is not None:
        plain = {key: value for key, value in json.loads(text).items() if key != CHECKSUM}
        if meta.files is None or meta.checksum != _checksum(plain):
            raise CheckpointError(path, CHECKSUM, "damaged: its values are not those that were written")
    return meta


def _check_position(path: Path, meta: Meta, steps: Sequence[int]) -> None:
    """Refuse a place that no run of these stages can stand at: every step logs one row.

    Raises:
        CheckpointError: naming the key.
    """
    last = steps[meta.stage] - 1 if meta.stage < len(steps) else 0
    expected = sum(steps[: meta.stage]) + meta.step
    for key, value, wrong, allowed in (
        ("stage", meta.stage, meta.stage > len(steps), f"at most {len(steps)}"),
        ("step", meta.step, meta.step > max(last, 0), f"at most {max(last, 0)} in stage {meta.stage}"),
        ("rows", meta.rows, meta.rows != expected, f"{expected}, a row per step"),
        ("rows", meta.rows, path.name != _name(meta.stage, meta.rows), f"those of checkpoint {path.name}"),
    ):
        if wrong:
            raise CheckpointError(path / META, key, f"damaged: found {value}, expected {allowed}")

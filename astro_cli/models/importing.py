"""A checkpoint on this disk, of any known format -> one folder: safetensors in diffusers' names, config.json, manifest.

diffusers' `WanTransformer3DModel.from_pretrained` reads the folder, and so does `checkpoint.load_transformer`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from huggingface_hub import split_state_dict_into_shards_factory

from astro_cli.config import durable
from astro_cli.config.errors import CheckpointError, OutputError
from astro_cli.config.files import Reader
from astro_cli.models import hashes, weights
from astro_cli.models.checkpoint import STEM, Checkpoint, load_transformer
from astro_cli.models.lora_files import Lora, content_hash
from astro_cli.models.lora_merge import check_strengths, read_loras
from astro_cli.models.merged import adapters_in, current, merge_into
from astro_cli.models.tensor_files import INDEX, some
from astro_cli.models.verify import Report, problems
from astro_cli.models.wan import sizes
from astro_cli.zoo import hub
from astro_cli.zoo.entries import BY_NAME, Release, known
from astro_cli.zoo.needs import MERGED
from astro_cli.zoo.places import MANIFEST, checkpoints_folder, imported, locate, released, target

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHARD_SIZE = 5 * 10**9  # bytes; a larger model is written in shards
MANIFEST_FORMAT = 2
MB = 10**6
OWN_KEYS = ("format", "source", "loras", "nesting", "names", "dtype")  # what makes two imports the same


def import_checkpoint(
    source: str,
    folder: Path | None,
    *,
    lora: Sequence[str],
    dtype: str | None,
    ema: bool | None,
    report: Report,
    shard_size: int = SHARD_SIZE,
) -> tuple[Path, bool]:
    """Write the import folder, whole or not at all.

    Args:
        source: a known release's name or a path.
        folder: where to; default below the checkpoints folder, under the release's or the file's name ("-merged" behind
            it with a LoRA).
        lora: adapters to merge: name, path or hub id, with `:STRENGTH` behind it where it is not 1.
        dtype: "bf16", "fp16" or "fp32"; default as stored.
        ema: as in `load_transformer`.
        shard_size: bytes a file may have.

    Returns:
        The folder, and whether it was written now (False: this import was there already, whole).

    Raises:
        CheckpointError: the source cannot be read, or holds the adapter already.
        OutputError: the folder holds something else.
    """
    entry = _entry(source)
    if entry is not None and entry.kind == "lora":
        hint = f"astro zoo import {entry.name.removesuffix('_lora')} --lora {entry.name}"
        raise CheckpointError(source, "", "a LoRA alone is no model", hint=f"merge it into its base: {hint}")
    check_strengths(lora)
    checkpoint = load_transformer(_outside(source), dtype=DTYPES[dtype] if dtype else None, ema=ema)
    adapters = read_loras(lora)
    state = merge_into(checkpoint, adapters)
    folder = folder or checkpoints_folder() / (_name(source, checkpoint, entry) + (MERGED if adapters else ""))
    _refuse_other(folder, [*checkpoint.files, *(adapter.source for adapter in adapters)])
    manifest = _manifest(checkpoint, adapters, entry, dtype, report)
    with _alone(folder):
        if _same(folder, manifest) and not problems(folder):
            return folder, False
        _write(folder, state, checkpoint, manifest, shard_size, report)
    return folder, True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing this import, by a lock beside it that the system drops with the process.

    Raises:
        OutputError: another process is writing it, or the place cannot be written.
    """
    path = folder.resolve().with_name(f".{folder.resolve().name}.lock")
    lock = FileLock(path, blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        hint = "wait for it to end, or choose another --to"
        raise OutputError(folder, "--to", "another process is importing into this folder", hint=hint) from error
    except OSError as error:
        raise OutputError(folder, "--to", f"cannot be written: {error.strerror}", hint="choose another --to") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _entry(source: str) -> Release | None:
    return known(source)


def _outside(source: str) -> str | Path:
    """The release itself, where a name is imported already: an import is never made from another import."""
    entry = BY_NAME.get(source)
    if entry is None or Path(source).exists() or imported(entry) is None:
        return source
    path = released(entry)
    if path is None:
        what = f"imported already to {imported(entry)}, and the release itself is not here any more"
        raise CheckpointError(
            source,
            "",
            what,
            hint=f"`astro zoo verify {source}` checks the import; to repeat it put the release at {target(entry)}",
        )
    return path


def _name(source: str, checkpoint: Checkpoint, entry: Release | None) -> str:
    if entry is not None:
        return entry.name
    path = locate(source)
    if path.is_dir() and (at := hub.of_snapshot(path)) is not None:
        return at.repo.split("/")[1]
    return path.stem if path.is_file() else path.resolve().name


def _refuse_other(folder: Path, sources: list[Path]) -> None:
    if folder.is_file():
        raise OutputError(folder, "--to", "is a file, expected a folder")
    if any(folder.resolve() in path.resolve().parents for path in sources):
        raise OutputError(folder, "--to", "holds the source itself", hint="choose another --to")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise OutputError(folder, "--to", "is not empty and holds no import", hint="choose another --to")


def _same(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether the folder holds this very import.

    Raises:
        OutputError: it holds another one.
    """
    path = folder / MANIFEST
    if not path.exists():
        return False
    hint = "delete the folder or choose another --to"
    existing = Reader(OutputError, what="not readable", hint=hint).table(path)
    try:
        existing = current(existing)
        differ = [key for key in OWN_KEYS if existing.get(key) != manifest[key]]
        written = {row["name"] for row in existing["written"]}
    except (LookupError, TypeError) as error:
        raise OutputError(path, "written", f"not readable: {error}", hint=hint) from error
    if differ:
        what = (
            f"holds another import ({differ[0]} is {_short(existing.get(differ[0]))}, this is "
            f"{_short(manifest[differ[0]])})"
        )
        raise OutputError(folder, "--to", what, hint="choose another --to, or delete the folder")
    extra = sorted({file.name for file in folder.iterdir()} - written - {MANIFEST})
    if extra:
        raise OutputError(
            folder,
            "--to",
            f"holds files that are not of the import: {some(extra)}",
            hint="move them, or choose another --to",
        )
    return True


def _short(value: Any) -> str:
    if isinstance(value, dict) and value.get("files"):
        return ", ".join(f"{file['name']} {file['sha256'][:8]}" for file in value["files"])
    return repr(value)


def _manifest(
    checkpoint: Checkpoint, adapters: Sequence[Lora], entry: Release | None, dtype: str | None, report: Report
) -> dict[str, Any]:
    """The manifest without its list of written files."""
    stored = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.state.tensors.values()})
    loras = [
        {
            "files": _hashes((adapter.source,), report),
            "nesting": adapter.nesting,
            "pairs": len(adapter.pairs),
            "strength": adapter.strength,
        }
        for adapter in adapters
    ]
    return {
        "format": MANIFEST_FORMAT,
        "entry": entry.name if entry else None,
        "repo": entry.repo if entry else None,
        "licence": entry.licence if entry else "unknown to astro",
        "source_name": f"{checkpoint.source.parent.name}/{checkpoint.source.name}",
        "source": {"files": _hashes(checkpoint.files, report)},
        "loras": loras,
        "lora_contents": [content_hash(adapter) for adapter in adapters],
        "earlier_loras": [row.kept() for row in adapters_in(checkpoint)],
        "names": checkpoint.format,
        "nesting": checkpoint.nesting,
        "dtype": str(DTYPES[dtype]).removeprefix("torch.") if dtype else stored,
        "config": checkpoint.config.model_dump(mode="json"),
        "tensors": len(checkpoint.state),
        "parameters": checkpoint.parameters,
    }


def _hashes(files: tuple[Path, ...], report: Report) -> list[dict[str, Any]]:
    """Name, bytes and sha256 of files."""
    rows = []
    for path in files:
        size, done = path.stat().st_size, 0

        def advance(count: int, path: Path = path, size: int = size) -> None:
            nonlocal done
            done += count
            report(f"sha256 of {path.name}, MB", done // MB, size // MB)

        rows.append({"name": path.name, "bytes": size, "sha256": hashes.sha256(path, advance)})
    return rows


def _write(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    checkpoint: Checkpoint,
    manifest: dict[str, Any],
    shard_size: int,
    report: Report,
) -> None:
    """All files into a hidden folder beside the target, which then takes its place."""
    folder = folder.resolve()
    temporary, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write_tensors(temporary, state, checkpoint, shard_size, report)
        durable.write_json(
            temporary / "config.json", sizes.to_diffusers(checkpoint.config, metadata.version("diffusers"))
        )
        written = _hashes(tuple(sorted(temporary.iterdir())), report)
        durable.write_json(temporary / MANIFEST, manifest | {"written": written})
        durable.sync(temporary)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(temporary, folder)
        durable.sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_tensors(
    folder: Path, state: Mapping[str, torch.Tensor], checkpoint: Checkpoint, shard_size: int, report: Report
) -> None:
    """One file, or shards with their index; one file's tensors are in memory at a time."""
    tensors, cast = checkpoint.state.tensors, checkpoint.state.dtype
    plan = split_state_dict_into_shards_factory(
        {name: tensors[name] for name in sorted(tensors)},
        filename_pattern=f"{STEM}{{suffix}}.safetensors",
        max_shard_size=shard_size,
        get_storage_size=lambda tensor: tensor.numel * (cast or tensor.dtype).itemsize,
    )
    done = 0
    for file, names in plan.filename_to_tensors.items():
        shard = {}
        for name in names:
            shard[name] = state[name]
            done += 1
            report("tensors", done, len(tensors))
        weights.write(folder / file, shard)
    if plan.is_sharded:
        durable.write_json(
            folder / f"{STEM}{INDEX}", {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        )

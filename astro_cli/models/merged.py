"""Which adapters weights hold already, so that none is merged into them twice.

An import's manifest lists what was merged on the way to it; a finished run leaves its adapter in `lora/` beside the
weights that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError, warn
from astro_cli.config.files import Reader
from astro_cli.models import hashes
from astro_cli.models.checkpoint import Checkpoint
from astro_cli.models.lora_files import Lora, content_hash, read_lora
from astro_cli.models.lora_merge import merge_loras
from astro_cli.models.wan import relatives
from astro_cli.zoo.places import MANIFEST

RUN_ADAPTER = "lora"  # folder beside a run's final weights


@dataclass(frozen=True)
class Merged:
    """An adapter that weights hold.

    Attributes:
        source: what says so.
        content: as of `content_hash`; None in manifests from before it.
        files: sha256 of the adapter's files.
    """

    source: str
    content: str | None
    files: tuple[str, ...] = ()

    def kept(self) -> dict[str, Any]:
        """As the next import's manifest keeps it."""
        return {"content": self.content, "files": [{"sha256": sha} for sha in self.files]}

    def is_of(self, adapter: Lora, content: str) -> bool:
        return self.content == content if self.content else hashes.sha256(adapter.source) in self.files


def merge_into(checkpoint: Checkpoint, adapters: Sequence[Lora]) -> Mapping[str, torch.Tensor]:
    """The weights with adapters folded in, each at its strength.

    Raises:
        CheckpointError: an adapter does not fit, or the weights hold it already.
    """
    merged = merge_loras(checkpoint.state, adapters)
    known = adapters_in(checkpoint)
    for adapter in adapters:
        content = content_hash(adapter) if known else ""
        for earlier in known:
            if earlier.is_of(adapter, content):
                what = f"is merged into {checkpoint.source} already, says {earlier.source}"
                raise CheckpointError(adapter.source, "", what, hint="leave --lora out, or name weights without it")
        if relatives.EXPERT.search(adapter.source.name):
            warn(f"{adapter.source}: by its name an adapter of {relatives.ONE_OF_TWO}")
    return merged


def adapters_in(checkpoint: Checkpoint) -> list[Merged]:
    """Adapters that were merged into a checkpoint, the oldest first."""
    folder = checkpoint.source.parent
    merged, beside = _of_manifest(folder / MANIFEST), folder / RUN_ADAPTER
    if not merged and beside.is_dir():
        return [Merged(f"{RUN_ADAPTER}/ beside it", content_hash(read_lora(beside)))]
    return merged


def _of_manifest(path: Path) -> list[Merged]:
    """Raises: CheckpointError: there is a manifest and it is damaged."""
    hint = "`astro zoo import` writes the folder again"
    manifest = Reader(CheckpointError, key="loras", what="not readable", hint=hint).table(path) if path.exists() else {}
    try:
        table = current(manifest)
        rows = [{"content": None} | row for row in table.get("earlier_loras", [])]
        contents = table.get("lora_contents") or [None] * len(table["loras"])
        rows += [row | {"content": content} for row, content in zip(table["loras"], contents, strict=True)]
        return [Merged(path.name, row["content"], _hashes(row["files"])) for row in rows]
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(path, "loras", f"not readable: {error}", hint=hint) from error


def current(manifest: dict[str, Any]) -> dict[str, Any]:
    """An import's manifest as one of format 2; format 1 holds at most one adapter, merged whole."""
    if "loras" in manifest:
        return manifest
    lora, content = manifest.get("lora"), manifest.get("lora_content")
    loras = [] if lora is None else [lora | {"strength": 1.0}]
    return manifest | {"format": 2, "loras": loras, "lora_contents": None if content is None else [content]}


def _hashes(files: list[dict[str, str]]) -> tuple[str, ...]:
    return tuple(file["sha256"] for file in files)

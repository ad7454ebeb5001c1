"""Which adapters weights hold already, so that none is merged into them twice.

An import's manifest lists what was merged on the way to it; a finished run leaves its adapter in `lora/` beside the
weights that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError, warn
from astro_cli.config.files import Reader
from astro_cli.models import hashes
from astro_cli.models.checkpoint import Checkpoint
from astro_cli.models.lora_files import Lora, content_hash, merge_lora, read_lora
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


def merge_into(checkpoint: Checkpoint, adapter: Lora) -> Mapping[str, torch.Tensor]:
    """The weights with an adapter folded in.

    Raises:
        CheckpointError: the adapter does not fit, or the weights hold it already.
    """
    merged = merge_lora(checkpoint.state, adapter)
    known = adapters_in(checkpoint)
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
    manifest = Reader(CheckpointError, key="lora", what="not readable", hint=hint).table(path) if path.exists() else {}
    try:
        rows = list(manifest.get("earlier_loras", []))
        if manifest.get("lora") is not None:
            rows.append({"content": manifest.get("lora_content"), "files": manifest["lora"]["files"]})
        return [Merged(path.name, row["content"], _hashes(row["files"])) for row in rows]
    except (LookupError, TypeError) as error:
        raise CheckpointError(path, "lora", f"not readable: {error}", hint=hint) from error


def _hashes(files: list[dict[str, str]]) -> tuple[str, ...]:
    return tuple(file["sha256"] for file in files)

"""What is wrong with a released checkpoint's file, by its size and header. Reads no values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astro_cli.config.errors import AstroError


def fault(path: Path, parameters: int = 0) -> str:
    """What is wrong; "" where nothing is, or where torch cannot be imported, which reads the headers.

    Args:
        path: a file of tensors or a shard index; of a shard, its index is read; of any other file or a folder, the
            tensors beside or in it.
        parameters: the least that the network has.
    """
    try:
        from astro_cli.models.tensor_files import open_file
    except (ImportError, OSError):  # a broken installation is what doctor is for
        return ""
    try:
        number = sum(_parameters(open_file(file)) for file in _files(path))
    except AstroError as error:
        return f"{error.where}: {error.what}"
    return f"{path}: {number:,} parameters, expected at least {parameters:,}" if number < parameters else ""


def _files(path: Path) -> list[Path]:
    """The files that make up a checkpoint: an index stands for its shards."""
    from astro_cli.models.tensor_files import INDEX, SUFFIXES

    folder = path if path.is_dir() else path.parent
    if path.name.endswith(INDEX) or (path.suffix in SUFFIXES and "-of-" not in path.stem):
        return [path]
    if indices := sorted(folder.glob(f"*{INDEX}")):
        return indices
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)


def _parameters(content: Any) -> int:
    """Numbers in the tensors of a file, nested ones too."""
    import torch

    from astro_cli.models.tensor_files import LazyTensor

    if isinstance(content, Mapping):
        return sum(_parameters(value) for value in content.values())
    if isinstance(content, LazyTensor):
        return content.numel
    return content.numel() if isinstance(content, torch.Tensor) else 0

"""Small layers on top of a tower's features, read from their released files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from astro_cli.models import network_files as files


def linear(path: Path, width: int, what: str) -> nn.Linear:
    """A layer from `width` features to one number (keys `weight`, `bias`).

    Raises:
        CheckpointError: other keys, or another width.
    """
    head = nn.Linear(width, 1)
    files.fill(head, files.read(path), path, what)
    return head

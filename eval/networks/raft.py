"""RAFT, one network for all scorers of a run."""

from __future__ import annotations

from pathlib import Path

from astro_cli.models import raft
from eval.contract import NetworkCache


def shared(loaded: NetworkCache, path: Path, model: raft.Model, updates: int) -> raft.Raft:
    return loaded.get(("raft", path, model, updates), lambda: raft.load(path, model, updates))

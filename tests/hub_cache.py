"""A Hugging Face cache for tests, laid out as `hf download` leaves it: blobs, snapshots of links, refs."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubCache:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, repo: str, files: Mapping[str, bytes], commit: str = COMMIT, ref: str = "main") -> Path:
        """Add files to a repository's snapshot; returns the snapshot's folder."""
        root = self.folder / f"models--{repo.replace('/', '--')}"
        snapshot = root / "snapshots" / commit
        for name, content in files.items():
            blob, link = root / "blobs" / hashlib.sha256(content).hexdigest(), snapshot / name
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        (root / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (root / "refs" / ref).write_text(commit)
        return snapshot

    def put_folder(self, repo: str, folder: Path) -> Path:
        """Add all files of a folder, which is removed."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        shutil.rmtree(folder)
        return self.put(repo, files)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    """An empty cache, which takes the place of the user's."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return HubCache(folder)

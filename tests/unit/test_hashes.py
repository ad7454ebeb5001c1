"""Hashes of files: what is read again, what is remembered, and that a bad memory is none."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from astro_cli.models import hashes

OLD = 1_600_000_000 * 10**9  # a time of change that is long past


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own cache folder; everything counts as large, and this process remembers nothing."""
    monkeypatch.setenv(hashes.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "LARGE", 1)
    monkeypatch.setattr(hashes, "_seen", {})
    return tmp_path / "cache" / "astro" / "digests.json"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names, real = [], hashes.sha256
    monkeypatch.setattr(hashes, "sha256", lambda path: names.append(path.name) or real(path))
    return names


def written(path: Path, content: bytes, changed: int = OLD) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(changed, changed))
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_pieces_and_reports_of_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(hashes, "PIECE", 4)
    sizes: list[int] = []
    assert hashes.sha256(written(tmp_path / "a", b"0123456789"), sizes.append) == sha(b"0123456789")
    assert sizes == [4, 4, 2]


def test_a_large_file_is_read_once_in_two_processes(cache, read, tmp_path, monkeypatch):
    path = written(tmp_path / "a", b"weights")
    assert hashes.remembered(path) == sha(b"weights")
    monkeypatch.setattr(hashes, "_seen", {})  # another process
    (tmp_path / "link").symlink_to(path)
    assert hashes.remembered(tmp_path / "link") == sha(b"weights")
    assert hashes.digest(path) == sha(b"weights")[:16]
    assert read == ["a"]
    assert list(cache.parent.iterdir()) == [cache]  # no temporary file is left


def test_another_content_size_time_or_inode_is_read_again(cache, read, tmp_path, monkeypatch):
    path = written(tmp_path / "a", b"weights")
    hashes.remembered(path)
    for content, changed in ((b"weighty", OLD + 1), (b"weight", OLD + 1)):
        assert hashes.remembered(written(path, content, changed)) == sha(content)
    os.replace(written(tmp_path / "b", b"eights"[:6], OLD + 1), path)  # as long and as old, another inode
    assert hashes.remembered(path) == sha(b"eights")
    assert len(read) == 4
    assert len(json.loads(cache.read_text())) == 1  # one entry per file


def test_a_file_changed_just_now_is_not_remembered(cache, read, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    hashes.remembered(path)
    assert hashes.remembered(path) == sha(b"one")
    assert read == ["a", "a"]
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null", b'{"a": 1}', b'[["PATH", 7, "x", 1, "y"], 3, []]'])
def test_a_memory_that_cannot_be_read_is_none(content, cache, read, tmp_path):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    path = written(tmp_path / "a", b"weights")
    assert hashes.remembered(path) == sha(b"weights")
    assert read == ["a"]
    assert json.loads(cache.read_text())[0][4] == sha(b"weights")  # and replaced by one that can


def test_an_entry_that_is_no_hash_is_not_believed(cache, tmp_path):
    path = written(tmp_path / "a", b"weights")
    cache.parent.mkdir(parents=True)
    facts = path.stat()
    cache.write_text(json.dumps([[str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino, "../../etc"]]))
    assert hashes.remembered(path) == sha(b"weights")


def test_an_entry_with_a_flipped_bit_is_not_believed(cache, tmp_path):
    path = written(tmp_path / "a", b"weights")
    hashes.remembered(path)
    right = sha(b"weights")
    cache.write_text(cache.read_text().replace(right, ("1" if right[0] == "0" else "0") + right[1:]))
    hashes._seen.clear()
    assert hashes.remembered(path) == right


def test_files_that_are_gone_leave_the_memory(cache, tmp_path):
    first = written(tmp_path / "a", b"1")
    hashes.remembered(first)
    first.unlink()
    hashes.remembered(written(tmp_path / "b", b"2"))
    assert [Path(row[0]).name for row in json.loads(cache.read_text())] == ["b"]


def test_a_cache_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(hashes.CACHE_VARIABLE, str(tmp_path / "file"))
    monkeypatch.setattr(hashes, "LARGE", 1)
    assert hashes.remembered(written(tmp_path / "a", b"weights")) == sha(b"weights")


def test_small_files_leave_no_trace_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv(hashes.CACHE_VARIABLE, str(tmp_path / "cache"))
    assert hashes.remembered(written(tmp_path / "a", b"weights")) == sha(b"weights")
    assert not (tmp_path / "cache").exists()

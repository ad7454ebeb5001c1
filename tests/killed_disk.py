"""What a killed process may leave: every state that a folder is in while something works on it. A helper of tests.

A state is taken before every call that changes the disk (a file or folder gets its name or loses it) and in the middle
of every line that is appended. No process is killed: what a kill leaves is the state the disk is in.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CALLS = ("mkdir", "replace", "unlink", "rmdir")


def states_of(work: Callable[[Path], None], folder: Path, into: Path) -> list[Path]:
    """Do the work in `folder`; copies of every state the folder was in, in order, below `into`."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = _Recorder(patch, folder, into)
        work(folder)
    return recorder.taken


class _Recorder:
    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, into: Path) -> None:
        self.folder, self.into, self.taken = folder, into, list[Path]()
        self.busy, self.last = False, object()
        for name in CALLS:
            patch.setattr(os, name, self._watched(getattr(os, name)))
        for module in (builtins, io):
            patch.setattr(module, "open", self._opening(open))

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.take()
            return call(*arguments, **options)

        return watched

    def _opening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opening(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            opened = call(file, mode, *arguments, **options)
            return _Appended(opened, self) if "a" in mode and not self.busy else opened

        return opening

    def take(self) -> None:
        """Copy the folder, unless it is as it was."""
        if self.busy:
            return
        self.busy = True
        try:
            paths = sorted(self.folder.rglob("*")) if self.folder.is_dir() else None
            state = paths and [(path, path.read_bytes() if path.is_file() else None) for path in paths]
            if state != self.last:
                self.last, copy = state, self.into / f"{len(self.taken):03d}"
                if paths is not None:
                    shutil.copytree(self.folder, copy)
                self.taken.append(copy)
        finally:
            self.busy = False


class _Appended:
    """A file opened to append; of what is written, half reaches the disk before the rest."""

    def __init__(self, file: Any, recorder: _Recorder) -> None:
        self._file, self._recorder = file, recorder

    def write(self, data: Any) -> int:
        half = len(data) // 2
        written = self._file.write(data[:half])
        self._file.flush()
        self._recorder.take()
        return written + self._file.write(data[half:])

    def __enter__(self) -> _Appended:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

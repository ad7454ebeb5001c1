"""Folders that a suite makes once, however many processes it runs in. A helper of tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills: by whichever process asks first, while the others wait. Read it; copy it to change
    it.

    A folder that `make` failed to fill is made anew by the next who asks.
    """
    base = factory.getbasetemp()
    suite = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # a worker's folder lies in that of the suite
    folder, done = suite / f"once-{name}", suite / f"once-{name}.done"
    with FileLock(suite / f"once-{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder

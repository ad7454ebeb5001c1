"""What a suite makes once is made once by all its processes, and anew after a failure."""

import multiprocessing
import os
from pathlib import Path

import pytest

from tests.once import once


class Factory:
    """A worker's base folder, as pytest's own factory gives it."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def getbasetemp(self) -> Path:
        self.base.mkdir(exist_ok=True)
        return self.base


def count(folder: Path) -> None:
    with (folder.parent / "made").open("a") as file:
        file.write("x")
    (folder / "file").write_text(str(os.getpid()))


def work(base: Path) -> None:
    os.environ["PYTEST_XDIST_WORKER"] = base.name
    once(Factory(base), "run", count)  # type: ignore[arg-type]


def test_processes_share_one_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(tmp_path / f"gw{index}",)) for index in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "x"
    assert (tmp_path / "once-run" / "file").is_file()


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    factory = Factory(tmp_path / "suite")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once(factory, "run", fail)  # type: ignore[arg-type]
    folder = once(factory, "run", count)  # type: ignore[arg-type]
    assert folder == tmp_path / "suite" / "once-run"
    assert [path.name for path in folder.iterdir()] == ["file"]

"""The command line as the tests of its commands run it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from released_layouts import State, network, write_original

from astro_cli.__main__ import main


@pytest.fixture
def astro(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs `astro ...` in an empty folder: (exit code, stdout, stderr); a traceback fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["astro", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        code = caught.value.code
        assert "Traceback" not in out + err
        return (code if isinstance(code, int) else 0), out, err

    return run


@pytest.fixture
def zoo(monkeypatch, capsys, tmp_path):
    """Runs `astro zoo ...` with an empty checkpoints folder: (exit code, stdout, stderr)."""
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "all"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["astro", "zoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        code = caught.value.code
        return (code if isinstance(code, int) else 0), out, err

    return run


@pytest.fixture
def state() -> State:
    return network(1).state_dict()


@pytest.fixture
def teacher(tmp_path, state) -> Path:
    """The 1.3B teacher's folder as released, below the checkpoints folder."""
    return write_original(tmp_path / "all" / "Wan2.1-T2V-1.3B", state)


@pytest.fixture
def run_sample(monkeypatch, capsys, tmp_path):
    """Runs `astro sample ...` in an empty folder: (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["astro", "sample", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return code, capsys.readouterr().err

    return run

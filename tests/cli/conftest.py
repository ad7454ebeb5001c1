"""The command line as the tests of its commands run it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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

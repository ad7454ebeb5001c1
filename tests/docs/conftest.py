"""A folder as a reader has it who has run the commands so far, and the command line in it."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from astro_cli.__main__ import main
from tests.docs.pages import ROOT
from tests.once import once

PROMPT = "a large red circle moves right slowly"
SMALL_RUN = (
    *("rl", "--recipe", "astrolabe_causal_shapes", "--seed", "1", "--steps", "1"),
    *("--set", "stages.nft.batch=4", "--set", "stages.nft.experience.prompts=2"),
    *("--set", "stages.nft.experience.group=2"),
)
VERDICTS = "verdict\nG\nG\nS\nB\nG\n"
RANKS = "item,arm,rank\n1,a,1\n1,b,2\n2,a,2\n2,b,1\n"
ANSWERS = '{"arm": "base", "other": "tuned", "verdict": "G", "criterion": "motion"}\n'
RATINGS = "criterion,score,arm\nmotion,4,a\nmotion,3,a\nmotion,2,b\nmotion,1,b\n"
FOLDERS = ("samples", "base", "tuned")


@pytest.fixture
def astro(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `astro ...` in this process: its exit code, and what it prints on both streams; no traceback."""

    def run(*arguments: str, typed: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        monkeypatch.setattr(sys, "argv", ["astro", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        code = caught.value.code
        return (code if isinstance(code, int) else 0), f"{out}\n{err}"

    return run


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, made once; every test has a copy of its own."""
    return once(tmp_path_factory, "reader", _fill)


def _fill(folder: Path) -> None:
    shutil.copytree(ROOT / "results" / "records", folder / "results" / "records")
    shutil.copytree(ROOT / "results" / "records", folder / "results" / "astrolabe" / "records")
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / "prompts.txt").write_text(f"{PROMPT}\n")
    (folder / "judgements.csv").write_text(VERDICTS)
    (folder / "ratings.csv").write_text(RATINGS)
    (folder / "ranks.csv").write_text(RANKS)
    (folder / "clips").mkdir()
    (folder / "clips" / "answers-ann.jsonl").write_text(ANSWERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in FOLDERS:
            _astro(patch, "sample", PROMPT, "--frames", "9", "--out", name)
        for name in FOLDERS[1:]:
            _astro(patch, "eval", "temporal-flickering", name)
        _astro(patch, *SMALL_RUN)


def _astro(patch: pytest.MonkeyPatch, *arguments: str) -> None:
    patch.setattr(sys, "argv", ["astro", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code


@pytest.fixture
def in_the_folder(reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the reader's folder as the current one, on a machine without any released weights."""
    folder = tmp_path / "reader"
    shutil.copytree(reader, folder, symlinks=True)
    monkeypatch.chdir(folder)
    for name in ("HF_HOME", "ASTRO_CHECKPOINTS", "VBENCH_CACHE_DIR", "ASTRO_PROMPTS"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    for name in ("ASTRO_JUDGE_URL", "ASTRO_VBENCH_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return folder

"""The Dockerfile's lines, as far as they can be checked without docker: the image itself is not built here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import ROOT
from tests.docs.terminal import makefile_targets

FILE = ROOT / "Dockerfile"


def instructions() -> Iterator[tuple[str, str]]:
    """(instruction, rest) of every line; continued lines are one, comments are none."""
    text = re.sub(r"\\\n\s*", "", FILE.read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest


def test_it_runs_make_run_as_a_user_without_roots_rights() -> None:
    lines = list(instructions())
    assert json.loads(dict(lines)["CMD"]) == ["make", "run"]
    assert "run" in makefile_targets()
    names = [name for name, _ in lines]
    assert dict(lines)["USER"] == "astro"
    assert names.index("USER") < names.index("COPY")
    assert "useradd --create-home astro" in " ".join(rest for name, rest in lines if name == "RUN")


def test_it_starts_from_a_slim_python_that_the_package_takes() -> None:
    lines = list(instructions())
    assert ("ARG", "PYTHON=3.11") in lines
    assert ("FROM", "python:${PYTHON}-slim") in lines
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_what_it_copies_is_there_and_belongs_to_the_user() -> None:
    for name, rest in instructions():
        if name == "COPY":
            flag, *sources, _ = rest.split()
            assert flag == "--chown=astro:astro"
            assert [source for source in sources if not (ROOT / source).exists()] == []


def test_what_it_makes_are_targets() -> None:
    used = re.findall(r"\bmake ([a-z-]+)", " ".join(rest for name, rest in instructions() if name == "RUN"))
    assert used
    assert set(used) <= makefile_targets()


def test_cpu_builds_of_torch_come_by_a_build_argument() -> None:
    lines = list(instructions())
    assert ("ARG", 'TORCH_INDEX=""') in lines
    runs = [rest for name, rest in lines if name == "RUN" and "TORCH_INDEX" in rest]
    assert len(runs) == 1
    assert '-c constraints.txt --index-url "$TORCH_INDEX" torch torchvision' in runs[0]


def test_what_git_ignores_stays_out_of_the_image() -> None:
    kept_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip("/")
        assert {pattern, f"**/{pattern}"} & set(kept_out), line
    assert not [line for line in kept_out if Path(line).parts[:1] == (".git",)]  # records name their commit

"""The wheel: small enough, and whole. Installed into a fresh environment it runs the main job."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MB = 10**6
LARGEST = 40 * MB
LEFT_OUT = shutil.ignore_patterns(
    ".*", "*.egg-info", "__pycache__", "bench", "build", "docs", "results", "shared", "tests"
)
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
PLACES = "import astro_cli, eval; print(astro_cli.__file__); print(eval.__file__)"
WRITTEN = {
    "index.html",
    "records/shapes.jsonl",
    "tables/astrolabe-1.md",
    "tables/astrolabe-1.json",
    "tables/astrolabe-1.csv",
    "figures/reward_curves.png",
    "runs/astrolabe_causal_shapes-seed0/metrics.jsonl",
    "runs/astrolabe_causal_shapes-seed0/final/student.safetensors",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the tree, by the build backend alone: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    source, made = folder / "source", folder / "made"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    made.mkdir()
    subprocess.run([sys.executable, "-c", BUILD, str(made)], cwd=source, env=clean(), check=True, capture_output=True)
    (path,) = made.glob("*.whl")
    return path


def clean() -> dict[str, str]:
    """The environment without what leads to this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def environment(folder: Path, wheel: Path) -> Path:
    """A fresh virtual environment with the wheel alone; the packages it depends on are this environment's. Returns its
    folder of programs.
    """
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    install = [programs / "python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel]
    subprocess.run(install, env=clean(), check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Only paths are added: an editable install of this checkout is a .pth of its own, which is not read here.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return programs


@pytest.mark.slow
def test_the_wheel_in_a_fresh_environment_reproduces_astrolabe(wheel, tmp_path):
    assert wheel.stat().st_size <= LARGEST
    programs = environment(tmp_path / "venv", wheel)
    desk = tmp_path / "desk"
    desk.mkdir()

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / command[0], *command[1:]], cwd=desk, env=clean(), capture_output=True, text=True, check=False
        )

    places = call("python", "-c", PLACES).stdout.splitlines()
    assert len(places) == 2
    assert all(Path(place).is_relative_to(tmp_path / "venv") for place in places)
    assert call("astro", "--version").stdout.split() == ["astro", metadata.version("astro-cli")]

    done = call("astro", "reproduce", "astrolabe", "--quick", "--steps", "2")
    assert done.returncode == 0, done.stderr
    out = desk / "results" / "astrolabe"
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files >= WRITTEN, WRITTEN - files
    assert any(name.startswith("clips/") and name.endswith(".gif") for name in files)
    assert any(name.startswith("clips/") and name.endswith(".mp4") for name in files)
    steps = (out / "runs" / "astrolabe_causal_shapes-seed0" / "metrics.jsonl").read_text().splitlines()
    assert len(steps) == 2
    page = (out / "index.html").read_text()
    assert "data:image/png;base64," in page
    table = (out / "tables" / "astrolabe-1.md").read_text()
    assert "not run" in table  # of the pairs that --quick leaves out
    assert f"page: {Path('results/astrolabe/index.html')}" in done.stdout

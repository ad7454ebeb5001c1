"""A run's folder: recipe as given and resolved, environment, metrics.jsonl, checkpoints, final weights. Refuses another recipe's folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import torch

from astro_cli.config.errors import OutputError
from astro_cli.models import weights
from astro_cli.recipe import Recipe

try:
    import fcntl
except ImportError:  # no POSIX locks on this platform: one trainer per folder is then the user's business
    fcntl = None

LOCK = ".lock"
KEEP_CHECKPOINTS = 2  # the newest may be the one being written when the machine dies
PACKAGES = ("torch", "diffusers", "peft", "accelerate", "safetensors", "pydantic", "numpy", "pandas")


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the source tree, or of nothing when installed without one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return result.stdout.strip()

    commit = git("rev-parse", "HEAD") if (root / ".git").exists() else None
    return {"commit": commit, "dirty": bool(git("status", "--porcelain")) if commit else None}


def environment(device: str, seed: int) -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        **git_state(), "python": platform.python_version(), "platform": platform.system().lower(), "machine": platform.machine(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": device, "seed": seed, "versions": versions,
    }  # fmt: skip


class RunDir:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO | None = None

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def finished(self) -> bool:
        return (self.final / "card.json").is_file()

    def open(self, recipe: Recipe, given: str, *, resume: bool, device: str) -> None:
        """Create the folder, or check that it holds this very recipe's run.

        The folder is this process's until `release`, or until the process ends, however it ends.

        Raises:
            OutputError: the folder holds another recipe's run or other files, or this run and `resume` was not asked for; or another process
                trains in it.
        """
        resolved = self.path / "resolved.json"
        if resolved.is_file():
            found = json.loads(resolved.read_text(encoding="utf-8"))
            if found["hash"] != recipe.hash():
                what = f"holds a run of {found['recipe']['name']!r} with other settings ({found['hash']}, this is {recipe.hash()})"
                raise OutputError(self.path, "--out", what, hint="choose another --out, or delete the folder")
            if not resume:
                raise OutputError(self.path, "--out", "holds this recipe's run already", hint="`--resume` continues it; or choose another --out")
            self._hold()
            return
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} - {"recipe.toml", "environment.json", LOCK}:
            raise OutputError(self.path, "--out", "is not empty and holds no run", hint="choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        self._hold()
        (self.path / "recipe.toml").write_text(given, encoding="utf-8")
        weights.write_json(self.path / "environment.json", environment(device, recipe.seed))
        weights.write_json(resolved, {"hash": recipe.hash(), "recipe": recipe.model_dump(mode="json")})

    def _hold(self) -> None:
        """Keep others from training here: a lock that the system drops with the process."""
        if fcntl is None:
            return
        self._lock = (self.path / LOCK).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            hint = "wait for it to end, or choose another --out"
            raise OutputError(self.path, "--out", "another process is training in this folder", hint=hint) from error

    def release(self) -> None:
        """Let others train here."""
        if self._lock is not None:
            self._lock.close()

    def log(self, row: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def trim_metrics(self, count: int) -> None:
        """Keep the first `count` rows: what was logged after the checkpoint a run resumes from is computed again."""
        if self.metrics.is_file():
            rows = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
            temporary = self.metrics.with_suffix(".part")
            temporary.write_text("".join(rows), encoding="utf-8")
            os.replace(temporary, self.metrics)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first (a checkpoint is renamed into place when whole)."""
        return sorted((self.path / "checkpoints").glob("[0-9]*"))

    def save_checkpoint(self, index: int, meta: dict[str, Any], groups: dict[str, dict[str, torch.Tensor]]) -> None:
        folder = self.path / "checkpoints" / f"{index:08d}"
        temporary = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        for name, tensors in groups.items():
            weights.write(temporary / f"{name}.safetensors", tensors)
        weights.write_json(temporary / "meta.json", meta)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        for old in self.checkpoints()[:-KEEP_CHECKPOINTS]:
            shutil.rmtree(old)

    def load_checkpoint(self) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]] | None:
        """The newest checkpoint's meta data and tensors, by group name."""
        found = self.checkpoints()
        if not found:
            return None
        meta = json.loads((found[-1] / "meta.json").read_text(encoding="utf-8"))
        return meta, {path.stem: weights.read(path) for path in sorted(found[-1].glob("*.safetensors"))}

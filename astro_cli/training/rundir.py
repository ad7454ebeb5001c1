"""A run's folder: recipe as given and resolved, environment, metrics.jsonl, final weights.

Refuses another recipe's folder. `checkpoints` owns the checkpoints' files.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import torch

from astro_cli.config.errors import OutputError
from astro_cli.models import weights
from astro_cli.spec import Recipe
from astro_cli.training import checkpoints

try:
    import fcntl
except ImportError:  # no POSIX locks on this platform: one trainer per folder is then the user's business
    fcntl = None

LOCK = ".lock"
PACKAGES = ("torch", "diffusers", "peft", "accelerate", "safetensors", "pydantic", "numpy", "pandas")


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the source tree, or of nothing when installed without one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
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
        **git_state(),
        "python": platform.python_version(),
        "platform": platform.system().lower(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "seed": seed,
        "versions": versions,
    }


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

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def identity(self) -> tuple[str, str] | None:
        """Name and hash of the recipe whose run is here; None where there is none.

        Raises:
            OutputError: there is one, and its resolved.json is damaged.
        """
        path = self.path / "resolved.json"
        if not path.is_file():
            return None
        try:
            resolved = json.loads(path.read_text(encoding="utf-8"))
            return str(resolved["recipe"]["name"]), str(resolved["hash"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "restore the file, delete the folder, or choose another --out"
            raise OutputError(
                path, "", f"damaged ({type(error).__name__}: {error}): it says whose run this is", hint=hint
            ) from error

    def recipe(self) -> Recipe:
        """The recipe of the run that is here, as it was resolved.

        Raises:
            OutputError: resolved.json is missing or damaged.
        """
        path = self.path / "resolved.json"
        try:
            return Recipe.model_validate_json(json.dumps(json.loads(path.read_text(encoding="utf-8"))["recipe"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                path, "", f"no recipe of a run: {error}", hint="restore the file, or choose another folder"
            ) from error

    def open(self, recipe: Recipe, given: str, *, resume: bool, device: str) -> None:
        """Create the folder, or check that it holds this very recipe's run.

        The folder is this process's until `release`, or until the process ends, however it ends.

        Raises:
            OutputError: the folder holds another recipe's run or other files; it holds this run without `resume`, or no
            run with it; it is a file or cannot be created; another process trains in it.
        """
        existing = self.identity()
        if existing is not None:
            self._check(existing, recipe, resume=resume)
            self._hold()
            self._write_resolved(recipe)  # what the hash leaves out may be another now
            return
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(self.path, "--out", "is a file, expected a folder", hint="choose another --out")
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} - {
            "recipe.toml",
            "environment.json",
            LOCK,
        }:
            raise OutputError(self.path, "--out", "is not empty and holds no run", hint="choose another --out")
        if resume:
            raise OutputError(
                self.path,
                "--resume",
                "there is no run to continue",
                hint="leave --resume out to begin one, or correct --out",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                self.path, "--out", f"cannot be created: {error.strerror}", hint="choose another --out"
            ) from error
        self._hold()
        (self.path / "recipe.toml").write_text(given, encoding="utf-8")
        weights.write_json(self.path / "environment.json", environment(device, recipe.seed))
        self._write_resolved(recipe)

    def _write_resolved(self, recipe: Recipe) -> None:
        weights.write_json(
            self.path / "resolved.json", {"hash": recipe.hash(), "recipe": recipe.model_dump(mode="json")}
        )

    def _check(self, existing: tuple[str, str], recipe: Recipe, *, resume: bool) -> None:
        """Whether the run that is here is this recipe's, and may go on."""
        if existing[1] != recipe.hash():
            what = f"holds a run of {existing[0]!r} with other settings ({existing[1]}, this is {recipe.hash()})"
            raise OutputError(self.path, "--out", what, hint="choose another --out, or delete the folder")
        if not resume:
            raise OutputError(
                self.path,
                "--out",
                "holds this recipe's run already",
                hint="`--resume` continues it; or choose another --out",
            )

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
            rows = self.metrics.read_bytes().splitlines(keepends=True)[:count]
            temporary = self.metrics.with_suffix(".part")
            temporary.write_bytes(b"".join(rows))
            weights.sync(temporary)
            os.replace(temporary, self.metrics)

    def save_checkpoint(
        self, index: int, stage: int, step: int, rows: int, groups: dict[str, dict[str, torch.Tensor]]
    ) -> None:
        """Write a checkpoint once the rows it counts on are on the disk."""
        if self.metrics.is_file():
            weights.sync(self.metrics)
        checkpoints.save(self.checkpoints, index, stage, step, rows, groups)

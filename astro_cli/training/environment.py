"""What a run's results may depend on beside its recipe and inputs: source tree, packages, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.errors import OutputError
from astro_cli.config.files import Reader

PACKAGES = ("torch", "diffusers", "peft", "accelerate", "safetensors", "pydantic", "numpy", "pandas")
BITS = ("python", "platform", "machine", "device", "threads", "commit")  # what may change a result beside packages


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


def read(path: Path) -> dict[str, Any]:
    """The environment a run began in.

    Raises:
        OutputError: missing or damaged.
    """
    reader = Reader(OutputError, what="cannot be read", hint="restore the file")
    environment = reader.table(path)
    lacking = [key for key in (*BITS, "dirty", "versions") if key not in environment]
    if lacking or not isinstance(environment["versions"], dict):
        reader.fail(path, f"no {', '.join(lacking) or 'versions'}")
    return environment


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of two environments may give other results, a phrase each."""
    before, after = _deciding(old), _deciding(new)
    return [f"{key} {before.get(key)}, now {after[key]}" for key in after if before.get(key) != after[key]]


def _deciding(environment: dict[str, Any]) -> dict[str, Any]:
    """The entries that results may depend on."""
    return {key: environment[key] for key in BITS} | environment["versions"]

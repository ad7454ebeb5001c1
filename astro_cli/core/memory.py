"""How much memory this machine has, and how much of it is free: within a container, what the container may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")
CGROUP_PARTS = Path("/sys/fs/cgroup/memory.stat")
FILES = ("active_file", "inactive_file")  # of the used memory: files' pages, which make way


def limit() -> float:
    """Bytes a container may use; infinite outside one."""
    return _number(CGROUP_LIMIT, float("inf"))


def total() -> float:
    """Bytes of main memory."""
    import psutil  # of use to few commands

    return min(psutil.virtual_memory().total, limit())


def available() -> float:
    """Bytes that a process may still take."""
    import psutil

    return max(0.0, min(psutil.virtual_memory().available, limit() - _number(CGROUP_USED, 0.0) + _of_files()))


def free(device: Any) -> float:
    """Bytes that a process may still take on a torch device."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return available()


def _of_files() -> float:
    """Bytes of the container's memory that hold pages of files."""
    rows = (line.partition(" ") for line in _text(CGROUP_PARTS).splitlines())
    return sum(float(value) for name, _, value in rows if name in FILES and value.isdigit())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path, otherwise: float) -> float:
    text = _text(path)
    return float(text) if text.isdigit() else otherwise

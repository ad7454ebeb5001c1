"""How much memory this machine has, and how much of it is free: within a container, what the container may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


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

    return max(0.0, min(psutil.virtual_memory().available, limit() - _number(CGROUP_USED, 0.0)))


def free(device: Any) -> float:
    """Bytes that a process may still take on a torch device."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return available()


def _number(path: Path, otherwise: float) -> float:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return otherwise
    return float(text) if text.isdigit() else otherwise

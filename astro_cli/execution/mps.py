"""Shares of a GPU through NVIDIA's Multi-Process Service: whether its daemon runs, and a process's percentage.

A percentage counts when a process first uses the GPU, so each reward worker is a process of its own.

**Deviations**: TeleBoost (section 6.1.2) has threads and `set_default_active_thread_percentage`.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import torch

PIPES, DEFAULT_PIPES = "CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"
PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
START = "nvidia-cuda-mps-control -d"


def runs() -> bool:
    """Whether there is a GPU here and the daemon that divides it."""
    control = Path(os.environ.get(PIPES, DEFAULT_PIPES)) / "control"
    try:
        is_pipe = stat.S_ISFIFO(control.stat().st_mode)
    except OSError:
        return False
    return is_pipe and torch.cuda.is_available()


def percentages(quotas: Mapping[str, float]) -> dict[str, int]:
    """Whole percentages by worker, rounded down so that a group's still sum to 100 at most; 1 at least."""
    return {name: max(1, math.floor(100 * quota + 1e-9)) for name, quota in quotas.items()}


def environment(quota: float) -> dict[str, str]:
    """What gives a process that is yet to start this share of the GPU."""
    return {PERCENTAGE: str(percentages({"": quota})[""])}

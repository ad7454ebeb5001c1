"""The most memory that was in use."""

from __future__ import annotations

import resource

import torch


def peak_memory() -> int:
    """Bytes: most that was allocated on a CUDA device, else the process's largest resident size."""
    return (
        torch.cuda.max_memory_allocated()
        if torch.cuda.is_initialized()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


def reset_peak(device: torch.device) -> None:
    """Count anew on a CUDA device; a process's largest size cannot be counted anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

"""Peak memory of a training step: bytes of tensors saved for backward, and on CUDA the allocator's peak. Results stay
the same.

The bytes are those of the distinct storages that autograd holds at the end of a forward pass, when it holds most.
Parameters are left out. Of a block under gradient checkpointing only what outlives its forward counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from astro_cli.training.sharded import own


class SavedTensors:
    """Counts the largest pass since the last `take`."""

    def __init__(self) -> None:
        self.peak = 0

    @contextmanager
    def counting(self, parameters: Iterable[torch.Tensor]) -> Iterator[None]:
        """Count what is saved for backward inside the block, storages of `parameters` left out."""
        known = {_storage(own(parameter)) for parameter in parameters}
        saved: list[torch.Tensor] = []  # so that no address is used twice while counting

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept = tensor.detach()  # not the tensor itself, which may be the output that saves it: a cycle
            if (storage := _storage(kept)) not in known:
                known.add(storage)
                saved.append(kept)
            return kept

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        self.peak = max(self.peak, sum(tensor.untyped_storage().nbytes() for tensor in saved))

    def take(self, device: torch.device) -> dict[str, float]:
        """Metrics of the step, and a fresh start."""
        metrics = {"memory/saved_bytes": float(self.peak)}
        if device.type == "cuda":
            metrics["memory/peak_bytes"] = float(torch.cuda.max_memory_allocated(device))
            torch.cuda.reset_peak_memory_stats(device)
        self.peak = 0
        return metrics


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

"""What a block of the transformer gives, seen from outside: a hook for the length of a pass.

Dimensions: B sample, F latent frame, P token per frame, C width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def hidden_state(block: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The outputs of a block's passes inside the `with`."""
    outputs: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        outputs.append(output)

    handle = block.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()

"""Who plays which part in a run: student, teacher, critic, and adapters of the student that act as old and reference
policy.

A role is a network, or a network seen through one of its adapters. Objectives take roles by name; only the roles they
declare exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from astro_cli.models import lora
from astro_cli.models.wan.transformer import CausalWan


class Roles:
    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self._adapters: dict[str, tuple[str, str | None]] = {}

    def add(self, role: str, module: nn.Module, *, trained: bool) -> None:
        module.requires_grad_(trained)
        self.modules[role] = module.train(False)

    def add_adapter(self, role: str, of: str, adapter: str | None) -> None:
        """Let `role` be the network of role `of` with another adapter (None: without any)."""
        self._adapters[role] = (of, adapter)

    def __contains__(self, role: str) -> bool:
        return role in self.modules or role in self._adapters

    @contextmanager
    def use(self, role: str) -> Iterator[CausalWan]:
        """The role's network, acting as that role inside the block; adapters are merged where gradients are off."""
        if role in self._adapters:
            of, adapter = self._adapters[role]
            network = self.modules[of]
            with lora.using(network, adapter):
                yield network  # type: ignore[misc]
        else:
            network = self.modules[role]
            with lora.merged(network, lora.TRAINED):
                yield network  # type: ignore[misc]

    def trainable(self, role: str) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.modules[role].named_parameters() if p.requires_grad]

    @torch.no_grad()
    def counts(self) -> dict[str, tuple[int, int]]:
        """Per network (trainable, total) parameters."""
        counts = {}
        for role, network in self.modules.items():
            trainable = sum(p.numel() for _, p in self.trainable(role))
            counts[role] = trainable, sum(p.numel() for p in network.parameters())
        return counts

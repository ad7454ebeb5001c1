"""One forward pass over a block of a rolling cache: what it may see, where its keys go. Plans and exchanges; `kv` owns
the memory.

In a pass that only reads (for gradients), everything cached is detached, but for what a live sink blended. Where the
cache rolls, the pass keeps what it read until it is released. Gradient checkpointing then recomputes it from the same
keys and values, not from those that later blocks wrote over them.
Dimensions: B sample, H head, L token, D head width.

Deviations: Self-Forcing's released code lets gradients through the overwritten cache. Its paper and Astrolabe's detach
the cache, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

import torch

from astro_cli.cache.exchange import KeysValues, LayerExchange, Moves, Rows, Settling, Stored
from astro_cli.cache.sinks.live import LiveSink
from astro_cli.models.wan.rope import RopeTable, rotate


class Memory(Protocol):
    """What a pass needs of the cache: keys and values per layer, where each frame lies, and what is kept of the
    sink.
    """

    keys: list[Stored]
    values: list[Stored]
    sink_k: list[torch.Tensor]
    tokens: int
    first: int
    end: int
    rewrites: int
    rolls: bool
    indexed: bool
    live: list[LiveSink]  # per layer, where the sink carries gradients

    def slot(self, frame: int) -> int: ...
    def visible(self, end: int) -> list[int]: ...
    def is_sink(self, frame: int) -> bool: ...
    def token_slice(self, slots: range) -> slice: ...
    def index(self, slots: list[int]) -> torch.Tensor: ...
    def settling(self, layer: int, end: int) -> Settling: ...
    def exchange_of(self, layer: int, moves: Moves) -> LayerExchange: ...
    def keep_live(self, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None: ...
    def live_sink(self, layer: int) -> KeysValues | None: ...


class Pass(Sequence):
    """The layer caches of a pass, and the temporal positions to call the model with.

    Who takes a layer's cache runs that layer next: without gradients its sink is settled then, and what remains are
    operations on tensors. With gradients all happens in `exchange`, so that gradient checkpointing may repeat it.
    """

    def __init__(self, cache: Memory, start: int, end: int, write: bool) -> None:
        self.cache, self.write, self.rewrites = cache, write, cache.rewrites
        self.newest = cache.end
        self.positions = list(range(start, end))
        self._lazy = [_LayerPass(self, layer) for layer in range(len(cache.keys))]
        visible = [frame for frame in cache.visible(cache.end) if frame < end]
        self.slots = sorted(cache.slot(frame) for frame in visible)
        self.history = runs(sorted(cache.slot(frame) for frame in visible if frame < start))
        self._made: Moves | None = None

    def __len__(self) -> int:
        return len(self._lazy)

    def __getitem__(self, layer: int) -> LayerExchange | _LayerPass:  # type: ignore[override]
        if layer >= len(self):
            raise IndexError(layer)
        if not self.write or self.cache.live or torch.is_grad_enabled():
            return self._lazy[layer]
        return self.cache.exchange_of(layer, self.moves(self.cache.settling(layer, self.newest)))

    def moves(self, settling: Settling) -> Moves:
        """What this pass does to a layer whose sink is to be settled so; all layers share it."""
        if self._made is None:
            self._made = self._plan(settling)
        if not self._made.settling.same(settling):
            self._made = replace(self._made, settling=settling)
        return self._made

    def _plan(self, settling: Settling) -> Moves:
        cache, own = self.cache, [self.cache.slot(frame) for frame in self.positions]
        if cache.indexed:
            targets: list[tuple[Rows, slice]] = [(cache.index(own), slice(None))]
        else:
            ends = list(accumulate(len(run) for run in runs(own)))
            sources = [cache.token_slice(range(end - len(run), end)) for run, end in zip(runs(own), ends, strict=True)]
            targets = list(zip(map(cache.token_slice, runs(own)), sources, strict=True))
        # The visible slots are the first ones, or scattered.
        whole = self.slots[-1] == len(self.slots) - 1
        seen = cache.token_slice(range(len(self.slots))) if whole else cache.index(self.slots)
        sink = [frame for frame in self.positions if cache.is_sink(frame)]
        if not sink or not cache.sink_k:
            return Moves(settling, tuple(targets), seen)
        offset = sink[0] - self.positions[0]
        rows = cache.token_slice(range(sink[0] - cache.first, sink[-1] + 1 - cache.first))
        return Moves(settling, tuple(targets), seen, rows, cache.token_slice(range(offset, offset + len(sink))))


class _LayerPass:
    """One layer's view of a pass with gradients, or of one that only reads (the transformer's `LayerCache`)."""

    def __init__(self, plan: Pass, layer: int) -> None:
        self.plan, self.layer = plan, layer
        self._past: KeysValues | None = None
        self._stored = False

    def exchange(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> KeysValues:
        """Take this pass's un-rotated keys and values; return all visible keys (rotated) and values."""
        rotated, plan = rotate(k, table), self.plan
        layer = plan.cache.exchange_of(self.layer, plan.moves(plan.cache.settling(self.layer, plan.newest)))
        layer.settle()
        if not plan.write:
            return self._read(rotated, v)
        if plan.cache.live and torch.is_grad_enabled():
            return self._record(layer, k, rotated, v)
        layer.store(k, rotated, v)
        return layer.keys.get(layer.moves.seen), layer.values.get(layer.moves.seen)

    def _record(self, layer: LayerExchange, k: torch.Tensor, rotated: torch.Tensor, v: torch.Tensor) -> KeysValues:
        """A writing pass with gradients: what it reads is as in a reading pass, what it stores may be blended into a
        live sink. Stored once, also where gradient checkpointing runs it again.
        """
        visible = self._read(rotated, v)
        if not self._stored:
            layer.store(k, rotated, v)
            self.plan.cache.keep_live(self.layer, self.plan.positions[0], k, v)
            self._stored = True
        return visible

    def _read(self, rotated: torch.Tensor, v: torch.Tensor) -> KeysValues:
        plan, cache = self.plan, self.plan.cache
        assert plan.rewrites == cache.rewrites, (
            "a prompt switch rewrote the history of a pass that still needs its gradients"
        )
        if self._past is None or not cache.rolls:
            parts = [cache.token_slice(run) for run in plan.history]
            past_k = [cache.keys[self.layer].get(part).expand(v.shape[0], -1, -1, -1) for part in parts]
            past_v = [cache.values[self.layer].get(part).expand(v.shape[0], -1, -1, -1) for part in parts]
            if not cache.rolls or not parts:
                return torch.cat((*past_k, rotated), 2), torch.cat((*past_v, v), 2)
            self._past = self._with_live_sink(torch.cat(past_k, 2), torch.cat(past_v, 2))
        return torch.cat((self._past[0], rotated), 2), torch.cat((self._past[1], v), 2)

    def _with_live_sink(self, k: torch.Tensor, v: torch.Tensor) -> KeysValues:
        """The visible past, its first tokens, the sink's, with their gradients where the sink carries any."""
        sink = self.plan.cache.live_sink(self.layer)
        if sink is None:
            return k, v
        tokens = sink[0].shape[2]
        return torch.cat((sink[0], k[:, :, tokens:]), 2), torch.cat((sink[1], v[:, :, tokens:]), 2)


def runs(slots: list[int]) -> list[range]:
    """Consecutive slots as ranges, keeping the order: [3, 4, 5, 0] -> [3..6), [0..1)."""
    ranges: list[range] = []
    for slot in slots:
        if ranges and ranges[-1].stop == slot:
            ranges[-1] = range(ranges[-1].start, slot + 1)
        else:
            ranges.append(range(slot, slot + 1))
    return ranges

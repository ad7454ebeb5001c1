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

from typing import Protocol

import torch

from astro_cli.cache.sinks.live import KeysValues, LiveSink
from astro_cli.models.wan.rope import RopeTable, rotate


class Memory(Protocol):
    """What a pass needs of the cache: keys and values per layer, where each frame lies, and what is kept of the
    sink.
    """

    k: list[torch.Tensor]
    v: list[torch.Tensor]
    sink_k: list[torch.Tensor]
    sink_v: list[torch.Tensor]
    tokens: int
    first: int
    end: int
    rewrites: int
    rolls: bool
    live: list[LiveSink]  # per layer, where the sink carries gradients

    def slot(self, frame: int) -> int: ...
    def visible(self, end: int) -> list[int]: ...
    def is_sink(self, frame: int) -> bool: ...
    def token_slice(self, slots: range) -> slice: ...
    def settle(self, layer: int, end: int) -> None: ...
    def keep_live(self, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None: ...
    def live_sink(self, layer: int) -> KeysValues | None: ...


class Pass(list):
    """A list of layer caches, and the temporal positions to call the model with."""

    def __init__(self, cache: Memory, start: int, end: int, write: bool) -> None:
        super().__init__(_LayerPass(self, layer) for layer in range(len(cache.k)))
        self.cache, self.write, self.rewrites = cache, write, cache.rewrites
        self.newest = cache.end
        self.positions = list(range(start, end))
        self.own = runs([cache.slot(frame) for frame in self.positions])
        visible = [frame for frame in cache.visible(cache.end) if frame < end]
        slots = sorted(cache.slot(frame) for frame in visible)
        # The visible slots are the first ones, or scattered.
        self.filled = len(slots) if slots[-1] == len(slots) - 1 else None
        self.seen = runs(slots)
        self.history = runs(sorted(cache.slot(frame) for frame in visible if frame < start))
        sink = [frame for frame in self.positions if cache.is_sink(frame)]
        offset = sink[0] - start if sink else 0
        self.sink_rows = (
            cache.token_slice(range(sink[0] - cache.first, sink[-1] + 1 - cache.first))
            if sink and cache.sink_k
            else None
        )
        self.sink_source = cache.token_slice(range(offset, offset + len(sink)))


class _LayerPass:
    """One layer's view of a pass (the transformer's `LayerCache`)."""

    def __init__(self, plan: Pass, layer: int) -> None:
        self.plan, self.layer = plan, layer
        self._past: KeysValues | None = None
        self._stored = False

    def exchange(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> KeysValues:
        """Take this pass's un-rotated keys and values; return all visible keys (rotated) and values."""
        rotated = rotate(k, table)
        self.plan.cache.settle(self.layer, self.plan.newest)
        if not self.plan.write:
            return self._read(rotated, v)
        if self.plan.cache.live and torch.is_grad_enabled():
            return self._record(k, rotated, v)
        self._store(k, rotated, v)
        return self._all_visible()

    def _record(self, k: torch.Tensor, rotated: torch.Tensor, v: torch.Tensor) -> KeysValues:
        """A writing pass with gradients: what it reads is as in a reading pass, what it stores may be blended into a
        live sink. Stored once, also where gradient checkpointing runs it again.
        """
        visible = self._read(rotated, v)
        if not self._stored:
            self._store(k, rotated, v)
            self.plan.cache.keep_live(self.layer, self.plan.positions[0], k, v)
            self._stored = True
        return visible

    def _store(self, k: torch.Tensor, rotated: torch.Tensor, v: torch.Tensor) -> None:
        plan, cache = self.plan, self.plan.cache
        k_buffer, v_buffer = cache.k[self.layer], cache.v[self.layer]
        done = 0
        for run in plan.own:
            target, source = cache.token_slice(run), slice(done, done + len(run) * cache.tokens)
            k_buffer[:, :, target], v_buffer[:, :, target] = rotated[:, :, source].detach(), v[:, :, source].detach()
            done = source.stop
        if plan.sink_rows is not None:
            cache.sink_k[self.layer][:, :, plan.sink_rows] = k[:, :, plan.sink_source].detach()
            if cache.sink_v:
                cache.sink_v[self.layer][:, :, plan.sink_rows] = v[:, :, plan.sink_source].detach()

    def _all_visible(self) -> KeysValues:
        plan, cache = self.plan, self.plan.cache
        k, v = cache.k[self.layer], cache.v[self.layer]
        if plan.filled is not None:
            return k[:, :, : plan.filled * cache.tokens], v[:, :, : plan.filled * cache.tokens]
        parts = [cache.token_slice(run) for run in plan.seen]
        return torch.cat([k[:, :, part] for part in parts], 2), torch.cat([v[:, :, part] for part in parts], 2)

    def _read(self, rotated: torch.Tensor, v: torch.Tensor) -> KeysValues:
        plan, cache = self.plan, self.plan.cache
        assert plan.rewrites == cache.rewrites, (
            "a prompt switch rewrote the history of a pass that still needs its gradients"
        )
        if self._past is None or not cache.rolls:
            parts = [cache.token_slice(run) for run in plan.history]
            past_k = [cache.k[self.layer][:, :, part].expand(v.shape[0], -1, -1, -1) for part in parts]
            past_v = [cache.v[self.layer][:, :, part].expand(v.shape[0], -1, -1, -1) for part in parts]
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

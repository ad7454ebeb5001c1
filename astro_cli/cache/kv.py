"""The rolling key/value cache of streaming generation: a container that knows indices. Sink policies decide what the sink holds.

All indices are python ints, so a pass needs no host synchronisation; frames live in fixed slots (the sink, then a ring), so nothing is moved or
cloned. Window and sink are counted in latent frames, and the window includes the sink and the current block.
Dimensions: B sample, H head, L token, D head width; P tokens per frame. Reference, sections 1.5, 5 and 6.

Deviations: the released caches shift memory on eviction and keep their pointers on the device; contents, order and counts are the same.
In a pass with gradients the cache is read only and everything in it is detached (Self-Forcing's and Astrolabe's papers; Self-Forcing's code lets
gradients through the overwritten cache, reference section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from astro_cli.cache.sinks.base import SinkPolicy
from astro_cli.cache.sinks.fixed import FixedSink
from astro_cli.config.errors import RecipeError
from astro_cli.models.wan.rope import RopeTable, rope_table, rotate


@dataclass(frozen=True)
class CacheSpec:
    """How much of the past is visible, and how keys are positioned.

    Args:
        window: visible latent frames, sink and current block included; None = everything.
        sink: first frames that are never evicted.
        relative: keys are stored un-rotated and get positions 0 .. n-1 by their place in the window (Infinity-RoPE), so length is unbounded; else
            keys carry their absolute frame position.
    """

    window: int | None = None
    sink: int = 0
    relative: bool = False

    def check(self, block: int) -> None:
        """Refuse a window that cannot hold the sink and one block."""
        if self.window is not None and self.window - self.sink < block:
            what = f"a window of {self.window} frames cannot hold the sink ({self.sink}) and a block of {block}"
            raise RecipeError("cache", "window", what, hint=f"use at least {self.sink + block}, or no window")


class KVCache:
    """Keys and values of all layers for a batch of videos.

    Args:
        layers, batch, heads, head_dim: shape of the model's attention.
        grid: (rows, columns) of tokens of a frame.
        spec: window, sink and position rule.
        max_frames: length of the video; only needed without a window.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        heads: int,
        head_dim: int,
        grid: tuple[int, int],
        spec: CacheSpec,
        max_frames: int | None = None,
        policy: SinkPolicy | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        slots = spec.window if spec.window is not None else max_frames
        assert slots is not None, "a cache without a window needs the length of the video"
        if max_frames is not None:
            slots = min(slots, max(max_frames, spec.sink + 1))
        self.spec, self.grid, self.slots = spec, grid, slots
        self.policy = policy or FixedSink()
        self.tokens = grid[0] * grid[1]
        shape = (batch, heads, slots * self.tokens, head_dim)
        self.k = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.v = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.end = 0  # frames written so far
        self._tables: dict[tuple[int, ...], RopeTable] = {}

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.k, *self.v))

    def slot(self, frame: int) -> int:
        """Where a frame lives: its own number until the slots are full, then the ring behind the sink."""
        ring = self.slots - self.spec.sink
        return frame if frame < self.spec.sink else self.spec.sink + (frame - self.spec.sink) % ring

    def visible(self, end: int) -> list[int]:
        """Frames that may be seen when the newest frame is `end` - 1, oldest first."""
        oldest = max(self.spec.sink, end - (self.slots - self.spec.sink))
        return [*range(min(self.spec.sink, end)), *range(oldest, end)]

    def begin(self, start: int, frames: int, *, write: bool) -> Pass:
        """Plan one forward pass over frames [start, start + frames).

        Args:
            write: store this pass's keys and values (again, if the block was seen before); else only read, for passes with gradients.
        """
        assert start <= self.end, "blocks come in order"
        end = start + frames
        if write and end > self.end:
            self._evict(start, end)
            self.end = end
        return Pass(self, start, end, write)

    def _evict(self, start: int, end: int) -> None:
        """Show the sink policy the frames about to be overwritten."""
        gone = [frame for frame in self.visible(self.end) if frame not in set(self.visible(end)) and frame >= self.spec.sink]
        if gone and self.spec.sink:
            sink, evicted = self.token_slice(range(self.spec.sink)), self._index(gone)
            for buffers in (self.k, self.v):
                for layer, buffer in enumerate(buffers):
                    key = (layer, buffers is self.k)
                    buffer[:, :, sink] = self.policy.update(key, buffer[:, :, sink], buffer[:, :, evicted])

    def token_slice(self, slots: range) -> slice:
        return slice(slots.start * self.tokens, slots.stop * self.tokens)

    def _index(self, frames: list[int]) -> torch.Tensor:
        slots = torch.tensor([self.slot(frame) for frame in frames])
        return (slots[:, None] * self.tokens + torch.arange(self.tokens)).flatten().to(self.k[0].device)

    def chronological(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of a layer's keys and values (B, H, L, D), oldest frame first; for inspection and export."""
        index = self._index(self.visible(self.end))
        return self.k[layer][:, :, index], self.v[layer][:, :, index]

    def table(self, frames: list[int], positions: dict[int, int]) -> RopeTable:
        key = tuple(positions[frame] for frame in frames)
        if key not in self._tables:
            if len(self._tables) > 64:
                self._tables.clear()
            self._tables[key] = rope_table(list(key), *self.grid, self.k[0].shape[-1], self.k[0].device)
        return self._tables[key]


class Pass(list):
    """One forward pass over a block: a list of layer caches, and the positions to call the model with."""

    def __init__(self, cache: KVCache, start: int, end: int, write: bool) -> None:
        super().__init__(_LayerPass(self, layer) for layer in range(len(cache.k)))
        self.cache, self.write = cache, write
        visible = cache.visible(end)
        place = {frame: index for index, frame in enumerate(visible)} if cache.spec.relative else {frame: frame for frame in visible}
        block = list(range(start, end))
        self.positions = [place[frame] for frame in block]
        self.own = _runs([cache.slot(frame) for frame in block])
        history = [frame for frame in visible if frame < start]
        self.history = _runs(sorted(cache.slot(frame) for frame in history))
        by_slot = sorted(visible, key=cache.slot)
        self.filled = len(visible)
        self.key_table = cache.table(by_slot, place) if cache.spec.relative else None
        past = [frame for frame in by_slot if frame < start]
        self.past_table = cache.table(past, place) if cache.spec.relative and past else None


class _LayerPass:
    """One layer's view of a pass (the transformer's `LayerCache`)."""

    def __init__(self, plan: Pass, layer: int) -> None:
        self.plan, self.layer = plan, layer

    def exchange(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> tuple[torch.Tensor, torch.Tensor]:
        """Take this pass's un-rotated keys and values; return all visible keys (rotated) and values."""
        plan, cache = self.plan, self.plan.cache
        k_buffer, v_buffer = cache.k[self.layer], cache.v[self.layer]
        stored = k if plan.key_table is not None else rotate(k, table)
        if plan.write:
            done = 0
            for run in plan.own:
                target, source = cache.token_slice(run), slice(done, done + len(run) * cache.tokens)
                k_buffer[:, :, target], v_buffer[:, :, target] = stored[:, :, source].detach(), v[:, :, source].detach()
                done = source.stop
            k_all, v_all = k_buffer[:, :, : plan.filled * cache.tokens], v_buffer[:, :, : plan.filled * cache.tokens]
            return (k_all if plan.key_table is None else rotate(k_all, plan.key_table)), v_all
        past_k = [k_buffer[:, :, cache.token_slice(run)].expand(k.shape[0], -1, -1, -1) for run in plan.history]
        past_v = [v_buffer[:, :, cache.token_slice(run)].expand(v.shape[0], -1, -1, -1) for run in plan.history]
        if plan.past_table is not None:
            past_k = [rotate(torch.cat(past_k, 2), plan.past_table)]
        own_k = rotate(k, table) if plan.key_table is not None else stored
        return torch.cat((*past_k, own_k), 2), torch.cat((*past_v, v), 2)


def _runs(slots: list[int]) -> list[range]:
    """Consecutive slots as ranges, keeping the order: [3, 4, 5, 0] -> [3..6), [0..1)."""
    runs: list[range] = []
    for slot in slots:
        if runs and runs[-1].stop == slot:
            runs[-1] = range(runs[-1].start, slot + 1)
        else:
            runs.append(range(slot, slot + 1))
    return runs

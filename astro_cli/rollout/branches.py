"""Keys and values of several continuations of one history: the history's stored once, each continuation's own on top.

Where `cache.kv.KVCache` rolls in place, this only appends, so what it holds may carry gradients (full back-propagation
through the context) and one history can be read by any number of clips. The visible frames are those a rolling cache of
the same window and sink would hold, oldest first. In passes without gradients in float32 on a CPU, clips side by side
read their history once, without a copy per clip (`shared_attention`).
Source: Astrolabe (arXiv 2603.17051) section 3.2, Eq. 3. Dimensions: P history, B clip, H head, L token, D head width.
Frames are latent frames.

**Deviations**: none from the paper; the released code has no shared prefix. The sink is the first frames as they are
(an averaging sink would be a history of each clip's own).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import torch

from astro_cli.cache.kv import CacheSpec, KVCache
from astro_cli.config.errors import RecipeError
from astro_cli.models.wan.rope import RopeTable, rope_table, rotate
from astro_cli.models.wan.shared_attention import KeysValues, attend_shared, can_share
from astro_cli.models.wan.transformer import CausalWan


@dataclass
class CachedFrames:
    """Keys and values of some frames, per layer (P or B, H, L, D); keys are rotated unless positions are relative."""

    frames: list[int]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    def select(self, rows: torch.Tensor) -> CachedFrames:
        return CachedFrames(self.frames, [k[rows] for k in self.keys], [v[rows] for v in self.values])


def snapshot(cache: KVCache) -> CachedFrames:
    """What a rolling cache holds, oldest frame first, as a history to branch from."""
    layers = [cache.chronological(layer) for layer in range(len(cache.k))]
    return CachedFrames(cache.visible(cache.end), [k for k, _ in layers], [v for _, v in layers])


def check_sink(spec: CacheSpec) -> None:
    """Refuse a sink that changes as frames leave the window.

    Raises:
        RecipeError: the cache's sink policy.
    """
    if spec.policy != "fixed":
        what = f"found {spec.policy!r}, clips that share a history need 'fixed'"
        raise RecipeError("cache", "policy", what, hint="a sink that blends frames would differ from clip to clip")


class Branches:
    """The context of B clips: histories they share, and their own blocks.

    Args:
        network, latent_shape: for the sizes of attention and of the token grid.
        spec: window, sink and position rule of the student.
        shared: segments of P histories.
        rows: (B,) which history each clip continues; None where a clip has its own (P = B).
        gradient: let what is recorded carry gradients; else it is detached.
    """

    def __init__(
        self,
        network: CausalWan,
        latent_shape: tuple[int, ...],
        spec: CacheSpec,
        shared: list[CachedFrames] | None = None,
        rows: torch.Tensor | None = None,
        *,
        gradient: bool = False,
    ) -> None:
        check_sink(spec)
        patch = network.config.patch
        self.grid = (latent_shape[-2] // patch[0], latent_shape[-1] // patch[1])
        self.span = network.span
        self.layers, self.head_dim, self.device = network.config.num_layers, network.config.head_dim, network.device
        self.spec, self.gradient, self.rows = spec, gradient, rows
        self.shared, self.own = list(shared or []), list[CachedFrames]()

    @cached_property
    def grouped(self) -> bool:
        """Whether clips that share a history are side by side, as many of each, and more than one."""
        if self.rows is None or not self.shared:
            return False
        histories = len(self.shared[0].keys[0])
        group, rest = divmod(len(self.rows), histories)
        if rest or group < 2:
            return False
        return self.rows.tolist() == torch.arange(histories).repeat_interleave(group).tolist()

    def select(self, rows: torch.Tensor) -> Branches:
        """The context of the clips at these rows; what they record from here on is not the others'."""
        selected = copy(self)
        vars(selected).pop("grouped", None)
        selected.own = [segment.select(rows) for segment in self.own]
        if self.rows is None:
            selected.shared = [segment.select(rows) for segment in self.shared]
        else:
            selected.rows = self.rows[rows]
        return selected

    def visible(self, end: int) -> set[int]:
        """Frames that may be seen when the newest is `end` - 1."""
        window, sink = self.spec.window, self.spec.sink
        oldest = 0 if window is None else max(sink, end - (window - sink))
        return {*range(min(sink, end)), *range(oldest, end)}

    def begin(self, start: int, frames: int, *, record: bool = False) -> BranchPass:
        """Plan one forward pass over frames [start, start + frames); with `record` its keys and values become part of
        the context.
        """
        return BranchPass(self, start, start + frames, record)

    def table(self, positions: list[int]) -> RopeTable:
        return rope_table(positions, *self.grid, self.head_dim, self.device, self.span)


class BranchPass(list):
    """One forward pass: a list of layer caches, and the positions to call the model with."""

    def __init__(self, branches: Branches, start: int, end: int, record: bool) -> None:
        super().__init__(_LayerBranch(self, layer) for layer in range(branches.layers))
        self.branches, self.relative = branches, branches.spec.relative
        seen = branches.visible(end)
        place = {frame: index for index, frame in enumerate(sorted(seen))}
        self.positions = [place[frame] if self.relative else frame for frame in range(start, end)]
        segments = [(segment, True) for segment in branches.shared] + [(segment, False) for segment in branches.own]
        self.parts: list[_Part] = []
        for segment, is_shared in segments:
            if kept := [frame for frame in segment.frames if frame < start and frame in seen]:
                self.parts.append(_part(segment, kept, place, branches, is_shared))
        empty = [torch.empty(0)] * branches.layers
        self.recorded = CachedFrames(list(range(start, end)), [*empty], [*empty]) if record else None
        if self.recorded is not None:
            branches.own.append(self.recorded)


@dataclass
class _Part:
    """The visible tokens of a segment, with the rotation its keys still need and whether clips share it."""

    segment: CachedFrames
    tokens: torch.Tensor | None  # None: all
    table: RopeTable | None
    shared: bool

    def stored(self, layer: int) -> KeysValues:
        """Keys, rotated, and values of each history, or of each clip where they are its own."""
        k, v = self.segment.keys[layer], self.segment.values[layer]
        if self.tokens is not None:
            k, v = k[:, :, self.tokens], v[:, :, self.tokens]
        return (k if self.table is None else rotate(k, self.table)), v

    def read(self, layer: int, rows: torch.Tensor | None, batch: int) -> KeysValues:
        """The same of each clip."""
        k, v = self.stored(layer)
        if not self.shared or rows is None:
            return k, v
        if len(k) == 1:  # one history: a view, not a copy per clip
            return k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)
        return k[rows], v[rows]


def _part(segment: CachedFrames, kept: list[int], place: dict[int, int], branches: Branches, shared: bool) -> _Part:
    """Its frames `kept`, at least one."""
    tokens, per_frame = None, branches.grid[0] * branches.grid[1]
    if len(kept) < len(segment.frames):
        index = torch.tensor([segment.frames.index(frame) for frame in kept])
        tokens = (index[:, None] * per_frame + torch.arange(per_frame)).flatten().to(branches.device)
    return _Part(
        segment, tokens, branches.table([place[frame] for frame in kept]) if branches.spec.relative else None, shared
    )


class _LayerBranch:
    """One layer's view of a pass (the transformer's `LayerCache`)."""

    def __init__(self, plan: BranchPass, layer: int) -> None:
        self.plan, self.layer = plan, layer

    def exchange(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> KeysValues:
        """Take this pass's un-rotated keys and values; return all visible keys (rotated) and values."""
        plan, rotated = self.plan, self._record(k, v, table)
        past = [part.read(self.layer, plan.branches.rows, len(k)) for part in plan.parts]
        return _joined([*past, (rotated, v)])

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> torch.Tensor | None:
        """Attention of clips side by side to the history they share, read once, and to keys of their own."""
        plan = self.plan
        shared = [part for part in plan.parts if part.shared]
        if not shared or not plan.branches.grouped or not can_share(q):
            return None
        rotated = self._record(k, v, table)
        own = [part.stored(self.layer) for part in plan.parts if not part.shared]
        return attend_shared(q, _joined([part.stored(self.layer) for part in shared]), _joined([*own, (rotated, v)]))

    def _record(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> torch.Tensor:
        """Make the keys and values part of the context, if this pass records; returns the rotated keys."""
        plan, rotated = self.plan, rotate(k, table)
        if plan.recorded is not None:
            # By layer, so that recomputation under gradient checkpointing writes the same place.
            stored, keep = (k if plan.relative else rotated), plan.branches.gradient
            plan.recorded.keys[self.layer] = stored if keep else stored.detach()
            plan.recorded.values[self.layer] = v if keep else v.detach()
        return rotated


def _joined(parts: list[KeysValues]) -> KeysValues:
    """Keys and values one after the other."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([k for k, _ in parts], 2), torch.cat([v for _, v in parts], 2)

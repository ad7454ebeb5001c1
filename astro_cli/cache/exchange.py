"""What one pass does to one layer's cache, as operations on tensors alone: `LayerExchange`. The planning, on python
ints, is in `kv` and `passes`.

Nothing here depends on a frame's number but through the tensors of `Moves`: a compiled block is one graph for all
blocks of a video, and a captured one can be replayed with other tensors in their place.
Source: FP8 storage follows OCP's OFP8 specification, format E4M3 (largest number 448), with one scale per token and
head.
Dimensions: B sample, H head, L token, D head width.

**Deviations**: none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from astro_cli.cache.sinks.base import SinkPolicy
from astro_cli.models.wan.rope import RopeTable, rotate

KeysValues = tuple[torch.Tensor, torch.Tensor]
Rows = slice | torch.Tensor
# One turn of an eviction: the sink's tokens, the evicted ones, and the inverse of these keys' rotation.
Blend = tuple[torch.Tensor, torch.Tensor, RopeTable]
FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
LEAST = 1e-12  # scale of an empty token


class Stored:
    """A buffer (B, H, L, D) of keys or values, as they are or in FP8.

    In FP8 a token of a head is x / s, s = max |x| / 448, so its largest entry keeps three bits of mantissa as all
    others do: a relative error of at most 2^-4 per entry, plus the spacing of subnormal numbers.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device | str,
        *,
        float8: bool = False,
    ) -> None:
        self.dtype = dtype
        # Bytes: few devices copy FP8 by index.
        self.data = torch.zeros(shape, device=device, dtype=torch.uint8 if float8 else dtype)
        self.scale = torch.zeros(*shape[:3], 1, device=device) if float8 else None

    @property
    def bytes(self) -> int:
        parts = (self.data,) if self.scale is None else (self.data, self.scale)
        return sum(part.numel() * part.element_size() for part in parts)

    def put(self, rows: Rows, x_BHLD: torch.Tensor) -> None:
        """Overwrite tokens."""
        if self.scale is None:
            _write(self.data, rows, x_BHLD.to(self.dtype))
            return
        scale = x_BHLD.abs().amax(-1, keepdim=True).float().clamp_min(LEAST) / LARGEST
        _write(self.scale, rows, scale)
        _write(self.data, rows, (x_BHLD.float() / scale).to(FLOAT8).view(torch.uint8))

    def get(self, rows: Rows) -> torch.Tensor:
        """Tokens in the model's dtype; a view where nothing needs converting and `rows` is a slice."""
        part = self.data[:, :, rows]
        if self.scale is None:
            return part
        return (part.view(FLOAT8).float() * self.scale[:, :, rows]).to(self.dtype)


def _write(buffer: torch.Tensor, rows: Rows, x: torch.Tensor) -> None:
    if isinstance(rows, slice):
        buffer[:, :, rows] = x
    else:
        buffer.index_copy_(2, rows, x)


@dataclass(frozen=True, eq=False)
class Settling:
    """How a sink follows the stream: turns of blending, then the rotation it is stored with; None leaves it there."""

    blends: tuple[Blend, ...] = ()
    place: RopeTable | None = None

    def same(self, other: Settling) -> bool:
        """Whether both do the same: the layers of a cache share their tensors."""
        return self.blends is other.blends and self.place is other.place


@dataclass(frozen=True, eq=False)
class Moves:
    """What a pass does to every layer.

    Attributes:
        settling: of the sink, before anything is stored.
        own: where the pass's tokens go: (rows of the buffers, rows of the pass).
        seen: the visible tokens; where they are the first ones, a slice.
        sink_rows, sink_source: the sink's own tokens among those of this pass, in its copy and in the pass.
    """

    settling: Settling
    own: tuple[tuple[Rows, slice], ...]
    seen: Rows
    sink_rows: slice | None = None
    sink_source: slice | None = None


class LayerExchange:
    """One layer's view of a pass that writes, without gradients (the transformer's `LayerCache`)."""

    def __init__(
        self,
        keys: Stored,
        values: Stored,
        sink_k: torch.Tensor | None,
        sink_v: torch.Tensor | None,
        policy: SinkPolicy,
        moves: Moves,
    ) -> None:
        self.keys, self.values, self.sink_k, self.sink_v = keys, values, sink_k, sink_v
        self.policy, self.moves = policy, moves

    def exchange(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> KeysValues:
        """Take this pass's un-rotated keys and values; return all visible keys (rotated) and values."""
        self.settle()
        self.store(k, rotate(k, table), v)
        return self.keys.get(self.moves.seen), self.values.get(self.moves.seen)

    @torch.no_grad()
    def settle(self) -> None:
        """Blend what leaves the window into the sink, and store it at its new position."""
        if self.sink_k is None:
            return
        for rows, evicted, back in self.moves.settling.blends:
            assert self.sink_v is not None, "a policy that blends keeps a sink of its own"
            k, v = rotate(self.keys.get(evicted).float(), back), self.values.get(evicted)
            self.sink_k.index_copy_(2, rows, self.policy.update(self.sink_k[:, :, rows], k))
            self.sink_v.index_copy_(2, rows, self.policy.update(self.sink_v[:, :, rows], v))
        if self.moves.settling.place is not None:
            sink = slice(0, self.sink_k.shape[2])
            self.keys.put(sink, rotate(self.sink_k, self.moves.settling.place))
            if self.sink_v is not None:
                self.values.put(sink, self.sink_v)

    def store(self, k: torch.Tensor, rotated: torch.Tensor, v: torch.Tensor) -> None:
        """This pass's keys and values into the buffers, and those of the sink's frames into its copy."""
        for rows, source in self.moves.own:
            self.keys.put(rows, rotated[:, :, source].detach())
            self.values.put(rows, v[:, :, source].detach())
        if self.moves.sink_rows is not None:
            assert self.sink_k is not None
            assert self.moves.sink_source is not None
            self.sink_k[:, :, self.moves.sink_rows] = k[:, :, self.moves.sink_source].detach()
            if self.sink_v is not None:
                self.sink_v[:, :, self.moves.sink_rows] = v[:, :, self.moves.sink_source].detach()

"""A cache whose keys and values carry gradients: of the frames of one segment, to their first frame and no further.

Where `kv.KVCache` writes into fixed buffers, this keeps what every pass gave, so a loss on a late frame reaches the
passes over earlier ones. `detach` ends a segment: what is kept stays visible, as numbers. Window, sink and positions
are those of `kv`, so both give the same attention.
Source: AAPT (arXiv 2506.09350), student forcing: gradients through the cache inside a segment, detached between
segments.
Dimensions: B sample, H head, L token, D head width; P tokens per frame.

**Deviations**: none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from astro_cli.cache.spec import CacheSpec
from astro_cli.models.wan.rope import RopeTable, rotate

Table = Callable[[list[int]], RopeTable]  # of the tokens of whole frames at temporal positions


@dataclass(frozen=True)
class _Frame:
    """One frame's un-rotated and rotated keys and its values (B, H, P, D)."""

    k: torch.Tensor
    rotated: torch.Tensor
    v: torch.Tensor

    def detached(self) -> _Frame:
        return _Frame(self.k.detach(), self.rotated.detach(), self.v.detach())


class SegmentCache(list):
    """One entry per layer.

    Args:
        table: rotations by position, as the network's.

    Attributes:
        positions: of the frame whose pass is planned.
    """

    def __init__(self, layers: int, spec: CacheSpec, table: Table) -> None:
        assert spec.policy == "fixed" or not spec.sink, "no frame is blended into the sink here"
        super().__init__(_Layer(self) for _ in range(layers))
        self.spec, self.table = spec, table
        self.positions: list[int] = []

    def begin(self, start: int, frames: int, *, write: bool) -> SegmentCache:
        """Plan a pass over one frame; a second pass over it replaces its keys and values."""
        assert frames == 1, "frame by frame"
        assert write, "every pass is kept"
        self.positions = [start]
        return self

    def visible(self, frame: int) -> list[int]:
        """Frames that `frame` sees, itself included, oldest first (`kv.KVCache.visible`)."""
        sink, end = self.spec.sink, frame + 1
        if self.spec.window is None:
            return list(range(end))
        oldest = max(sink, end - (self.spec.window - sink))
        return [*range(min(sink, end)), *range(oldest, end)]

    def sink_table(self, frame: int) -> RopeTable | None:
        """Where the sink's keys are rotated to: just before the window with relative positions; None: their own
        places.
        """
        spec = self.spec
        if not spec.relative or not spec.sink or spec.window is None:
            return None
        oldest = max(spec.sink, frame + 1 - (spec.window - spec.sink))
        first = oldest - spec.sink
        return None if first == 0 else self.table([first + place for place in range(min(spec.sink, frame + 1))])

    @property
    def slots(self) -> int:
        """Frames that are visible at most; without a window those there are."""
        return self.spec.window or len(self[0].frames)

    @property
    def rolls(self) -> bool:
        """Whether frames get evicted."""
        return self.spec.window is not None

    @property
    def bytes(self) -> int:
        """Of the keys and values that are seen."""
        frames = [frame for layer in self for frame in layer.frames.values()]
        return sum(part.numel() * part.element_size() for frame in frames for part in (frame.rotated, frame.v))

    @property
    def sink_bytes(self) -> int:
        """Of keys before their rotation, which are kept beside them."""
        frames = [frame for layer in self for frame in layer.frames.values()]
        return sum(frame.k.numel() * frame.k.element_size() for frame in frames)

    def detach(self) -> None:
        """End the segment."""
        for layer in self:
            layer.frames = {number: frame.detached() for number, frame in layer.frames.items()}


class _Layer:
    def __init__(self, cache: SegmentCache) -> None:
        self.cache, self.frames = cache, dict[int, _Frame]()

    def exchange(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> tuple[torch.Tensor, torch.Tensor]:
        """Take this pass's un-rotated keys and values; return all visible keys (rotated) and values."""
        (frame,) = self.cache.positions
        visible = self.cache.visible(frame)
        self.frames[frame] = _Frame(k, rotate(k, table), v)
        self.frames = {number: self.frames[number] for number in visible}
        keys = [each.rotated for each in self.frames.values()]
        if (moved := self.cache.sink_table(frame)) is not None:
            sink = [number for number in visible if number < self.cache.spec.sink]
            unrotated = torch.cat([self.frames[number].k for number in sink], 2)
            keys = [rotate(unrotated, moved), *keys[len(sink) :]]
        return torch.cat(keys, 2), torch.cat([each.v for each in self.frames.values()], 2)

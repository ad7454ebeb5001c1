"""The rolling key/value cache of streaming generation: which frames it keeps, and where. Sink policies decide what the
sink holds.

All indices are python ints, so a pass needs no host synchronisation; frames live in fixed slots (the sink, then a
ring), so nothing is moved or cloned. Keys are stored rotated by their absolute frame number. Relative positions then
only concern the sink: inside the window the distance of two frames is the difference of their numbers anyway, so when
the window moves on, only the sink is rotated again: once per block, from its un-rotated keys. `passes` plans a forward
pass. Window and sink are counted in latent frames, and the window includes the sink and the current block.
Source: the released inference code of Self-Forcing (arXiv 2506.08009), LongLive (arXiv 2509.22622) and Reward Forcing
(arXiv 2512.04678).
Dimensions: B sample, H head, L token, D head width; P tokens per frame.

Deviations: the released caches shift memory on eviction, keep their pointers on the device, and with relative positions
rotate the whole window in every layer and pass; contents, order, counts and attention are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from astro_cli.cache.exchange import Blend, LayerExchange, Moves, Settling, Stored
from astro_cli.cache.passes import Pass, runs
from astro_cli.cache.sinks.base import SinkPolicy
from astro_cli.cache.sinks.ema import EmaSink
from astro_cli.cache.sinks.fixed import FixedSink
from astro_cli.cache.sinks.live import KeysValues, LiveSink, recorded_once
from astro_cli.cache.spec import CacheSpec
from astro_cli.config.errors import StreamError
from astro_cli.models.wan.rope import RopeTable, Span, rope_table, rotate

__all__ = ["CacheSpec", "KVCache", "make_policy"]


def make_policy(spec: CacheSpec) -> SinkPolicy:
    return EmaSink(spec.alpha) if spec.policy == "ema" else FixedSink()


class KVCache:
    """Keys and values of all layers for a batch of videos.

    Args:
        layers, batch, heads, head_dim: shape of the model's attention.
        grid: (rows, columns) of tokens of a frame.
        spec: window, sink, position rule and sink policy.
        max_frames: length of the video; only needed without a window.
        policy: instead of the spec's.
        span: what rows and columns are stretched to, the network's.
        live: keep the gradients of what is blended into the sink (`LiveSink`); for a policy that blends.
        float8: keep keys and values in FP8 (`exchange.Stored`).
        indexed: passes name their slots by tensors, not by python ints, so that one graph serves them all; default on
            all devices but a CPU.
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
        span: Span | None = None,
        live: bool = False,
        float8: bool = False,
        indexed: bool | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        slots = spec.window if spec.window is not None else max_frames
        assert slots is not None, "a cache without a window needs the length of the video"
        if max_frames is not None:
            slots = min(slots, max(max_frames, spec.sink + 1))
        self.spec, self.grid, self.span, self.slots = spec, grid, span, slots
        self.policy = policy or make_policy(spec)
        self.tokens = grid[0] * grid[1]
        self.rolls = spec.window is not None and (max_frames is None or max_frames > slots)  # frames get evicted
        self.end = 0  # frames seen so far
        self.first = 0  # the sink's first frame; later than 0 once a prompt switch renewed the sink
        self.rewrites = 0  # how often finished frames were given other keys

        def buffers(count: int, frames: int, kind: torch.dtype) -> list[torch.Tensor]:
            return [
                torch.zeros(batch, heads, frames * self.tokens, head_dim, device=device, dtype=kind)
                for _ in range(count)
            ]

        self.indexed = torch.device(device).type != "cpu" if indexed is None else indexed
        shape = batch, heads, slots * self.tokens, head_dim
        self.keys = [Stored(shape, dtype, device, float8=float8) for _ in range(layers)]
        self.values = [Stored(shape, dtype, device, float8=float8) for _ in range(layers)]
        self.k, self.v = [stored.data for stored in self.keys], [stored.data for stored in self.values]
        blends = self.policy.blends and spec.sink > 0
        kept = torch.float32 if blends else dtype
        self.sink_k = buffers(layers if blends or (spec.relative and spec.sink) else 0, spec.sink, kept)  # un-rotated
        self.sink_v = buffers(layers if blends else 0, spec.sink, kept)
        self.live = [LiveSink() for _ in range(layers if live and blends else 0)]
        self._settled = [0] * layers  # frames each layer's sink has followed
        self._sink_at: list[int | None] = [
            0
        ] * layers  # the position a layer's sink keys are rotated to; None: what it holds has changed
        self._moves: dict[tuple[int, int], tuple[Blend, ...]] = {}  # of the newest eviction, for all layers
        self._placed: tuple[int, RopeTable] | None = None  # the newest position of the sink and its table

    @property
    def bytes(self) -> int:
        """Of keys and values: slots x frame bytes; with the scales of an FP8 cache."""
        return sum(stored.bytes for stored in (*self.keys, *self.values))

    @property
    def sink_bytes(self) -> int:
        """Of the sink's own copy: un-rotated keys with relative positions; keys and values in float32 where the policy
        blends.
        """
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.sink_k, *self.sink_v))

    def _buffers(self) -> dict[str, torch.Tensor]:
        scales = [stored.scale for stored in (*self.keys, *self.values) if stored.scale is not None]
        kinds = {"k": self.k, "v": self.v, "sink_k": self.sink_k, "sink_v": self.sink_v, "scale": scales}
        return {f"{kind}.{layer}": tensor for kind, tensors in kinds.items() for layer, tensor in enumerate(tensors)}

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the cache holds, by name: its own buffers and its position. Copy them before the next pass."""
        places = [-1 if place is None else place for place in self._sink_at]
        standing = {"at": [self.end, self.first, self.rewrites], "settled": self._settled, "sink_at": places}
        return self._buffers() | {name: torch.tensor(values) for name, values in standing.items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Hold what `state` holds.

        Raises:
            StreamError: a tensor is missing, or of another shape or number type.
        """
        buffers = self._buffers()
        shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in buffers.items()}
        layers = (len(self.k),), torch.int64
        for name, expected in (shapes | {"at": ((3,), torch.int64), "settled": layers, "sink_at": layers}).items():
            layout = (tuple(state[name].shape), state[name].dtype) if name in state else "nothing"
            if layout != expected:
                what = f"found {layout} in the saved stream, expected {expected}"
                raise StreamError("cache", name, what, hint="is the network the same?")
        for name, tensor in buffers.items():
            tensor.copy_(state[name])
        self.end, self.first, self.rewrites = state["at"].tolist()
        self._settled = state["settled"].tolist()
        self._sink_at = [None if place < 0 else place for place in state["sink_at"].tolist()]
        self._moves, self._placed = {}, None

    @property
    def ring(self) -> int:
        return self.slots - self.spec.sink

    def is_sink(self, frame: int) -> bool:
        return self.first <= frame < self.first + self.spec.sink

    def slot(self, frame: int) -> int:
        """Where a frame lives: the sink's frames first, then the ring."""
        return frame - self.first if self.is_sink(frame) else self.spec.sink + (frame - self.spec.sink) % self.ring

    def oldest(self, end: int) -> int:
        """First frame behind the sink that may be seen when the newest frame is `end` - 1."""
        return max(self.first + self.spec.sink, end - self.ring)

    def visible(self, end: int) -> list[int]:
        """Frames that may be seen when the newest frame is `end` - 1, oldest first."""
        return [*range(self.first, min(self.first + self.spec.sink, end)), *range(self.oldest(end), end)]

    def sink_position(self, end: int) -> int:
        """Temporal position of the sink's first frame: its own number, or with relative positions just before the
        window.
        """
        return self.oldest(end) - self.spec.sink if self.spec.relative else self.first

    def begin(self, start: int, frames: int, *, write: bool) -> Pass:
        """Plan one forward pass over frames [start, start + frames); a new block evicts what it pushes out, layer by
        layer as the pass gets there.

        Args:
            write: store this pass's keys and values (again, if the frames were seen before); else only read, for passes
                with gradients.
        """
        assert start <= self.end, "blocks come in order"
        end = start + frames
        assert end >= self.end or write, "frames before the newest are only rewritten"
        self.end = max(self.end, end)
        return Pass(self, start, end, write)

    def renew_sink(self) -> None:
        """Make the first of the last `slots` frames the sink from now on; the next pass must rewrite their keys and
        values.
        """
        self.first = max(0, self.end - self.slots)
        self._sink_at = [self.first] * len(self.k)

    def settling(self, layer: int, end: int) -> Settling:
        """What lets a layer's sink follow the stream to frame `end`: blend the frames that left the window, then rotate
        to the new position. It counts as done; who asks applies it, before the layer stores anything of the block that
        ends there. Once per block, so there is nothing to do in its later passes.
        """
        if not self.sink_k:
            return Settling()
        before, blends = self._settled[layer], ()
        if end > before:
            if self.sink_v and self.oldest(before) < self.oldest(end):
                blends = self._leaving(self.oldest(before), self.oldest(end))
                if self.live:
                    self._blend_live(layer, range(self.oldest(before), self.oldest(end)))
                self._sink_at[layer] = None
            self._settled[layer] = end
        position = self.sink_position(self._settled[layer])
        if position == self._sink_at[layer]:
            return Settling(blends)
        self._sink_at[layer] = position
        return Settling(blends, self._sink_table(position))

    def exchange_of(self, layer: int, moves: Moves) -> LayerExchange:
        """One layer's tensors, ready for what a pass does to them."""
        sink_k = self.sink_k[layer] if self.sink_k else None
        sink_v = self.sink_v[layer] if self.sink_v else None
        return LayerExchange(self.keys[layer], self.values[layer], sink_k, sink_v, self.policy, moves)

    @recorded_once()
    def _blend_live(self, layer: int, frames: range) -> None:
        """The same with gradients, frame by frame; before the sink's own tokens change."""
        for frame in frames:
            place = (frame - self.first) % self.spec.sink
            rows = self.token_slice(range(place, place + 1))
            start = self.sink_k[layer][:, :, rows].clone(), self.sink_v[layer][:, :, rows].clone()
            self.live[layer].blend(place, start, frame, self.policy)

    def keep_live(self, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Take a clean block's un-rotated keys and values with their gradients, from frame `start` on; the sink's own
        frames are never evicted.
        """
        self.live[layer].keep(start, k, v, self.tokens)
        for frame in range(self.first, self.first + self.spec.sink):
            self.live[layer].frames.pop(frame, None)

    @recorded_once()
    def live_sink(self, layer: int) -> KeysValues | None:
        """The sink's rotated keys and values with the gradients of what was blended into it; the numbers are those of
        the buffers. None where nothing was.
        """
        if not self.live or not self.live[layer].blended or self._placed is None:
            return None
        rows = self.token_slice(range(self.spec.sink))
        buffer_k, buffer_v = self.keys[layer].get(rows).clone(), self.values[layer].get(rows).clone()
        k, v = self.live[layer].keys_values(self.sink_k[layer], self.sink_v[layer], self.tokens)
        k = rotate(k, self._placed[1])
        return buffer_k + (k - k.detach()).to(buffer_k.dtype), buffer_v + (v - v.detach()).to(buffer_v.dtype)

    def _leaving(self, oldest: int, kept: int) -> tuple[Blend, ...]:
        """For frames [oldest, kept), which leave the window, in turns of at most one per sink frame: the sink tokens
        they are blended into, their tokens in the buffers, and the inverse of their rotation.
        """
        if (oldest, kept) not in self._moves:
            size = self.spec.sink
            turns = [list(range(begin, min(begin + size, kept))) for begin in range(oldest, kept, size)]
            self._moves = {(oldest, kept): tuple(self._move(frames) for frames in turns)}
        return self._moves[oldest, kept]

    def _move(self, frames: list[int]) -> Blend:
        """One turn of `_leaving`."""
        sink = self.index([(frame - self.first) % self.spec.sink for frame in frames])
        return sink, self.index([self.slot(frame) for frame in frames]), self.table(frames).inverse()

    def _sink_table(self, position: int) -> RopeTable:
        """Rotation of the sink whose first frame is at `position`."""
        if self._placed is None or self._placed[0] != position:
            self._placed = position, self.table([position + place for place in range(self.spec.sink)])
        return self._placed[1]

    def token_slice(self, slots: range) -> slice:
        return slice(slots.start * self.tokens, slots.stop * self.tokens)

    def table(self, positions: list[int]) -> RopeTable:
        """Rotation of whole frames at temporal positions."""
        return rope_table(positions, *self.grid, self.k[0].shape[-1], self.k[0].device, self.span)

    def index(self, slots: list[int]) -> torch.Tensor:
        """Token numbers of whole slots, made on the cache's device."""
        device = self.k[0].device
        parts = [torch.arange(run.start * self.tokens, run.stop * self.tokens, device=device) for run in runs(slots)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def chronological(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of a layer's keys and values (B, H, L, D), oldest frame first; for inspection and export.

        Keys are as the released caches hold them: rotated by absolute position, un-rotated with relative positions.
        """
        visible = self.visible(self.end)
        index = self.index([self.slot(frame) for frame in visible])
        k, v = self.keys[layer].get(index), self.values[layer].get(index)
        if self.spec.relative:
            shift = self.sink_position(self.end) - self.first
            k = rotate(k, self.table([frame + shift if self.is_sink(frame) else frame for frame in visible]).inverse())
        return k, v

"""The steady state of a stream as recorded graphs: once the window is full, all passes of a kind are the same
operations on the same memory, and only the tensors they start from differ. `Captured` copies these in place and
replays.

What is replayed has no host in it: no python, no kernel launches one by one, no waiting. There are two kinds of passes:
the first of a block, which takes the context of the block before it along and lets the sink follow, and the others.
Source: CUDA graphs, through `torch.cuda.graph`.
Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

**Deviations**: none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace

import torch

from astro_cli.cache.exchange import LayerExchange, Moves, Settling
from astro_cli.cache.passes import Pass
from astro_cli.models.wan.rope import RopeTable
from astro_cli.models.wan.transformer import CausalWan, Context, TextStates

Work = Callable[[], torch.Tensor]
KEPT = 4  # graphs: both kinds, under the prompt before a switch and after it
WARM = 2  # passes of a kind that run as they are, which settle what libraries allocate


def cuda_graph(work: Work) -> Work:
    """Record a computation on the GPU without running it; the result replays it into the same output.

    Other threads may use the GPU meanwhile, as the decoder does.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


class Captured:
    """Runs a stream's passes without gradients, in the place of its network.

    Args:
        record: records a computation on fixed memory, without running it.

    Attributes:
        replayed: passes that ran from a recording.
    """

    def __init__(self, network: CausalWan, record: Callable[[Work], Work] = cuda_graph) -> None:
        self.network, self.record, self.replayed = network, record, 0
        self._graphs: dict[tuple, _Graph] = {}

    def __call__(
        self,
        x_BFCHW: torch.Tensor,
        timestep_BF: torch.Tensor,
        text: TextStates,
        *,
        positions: list[int],
        cache: Pass,
        before: Context | None = None,
    ) -> torch.Tensor:
        """As `CausalWan.forward`; what a recording returns is overwritten by its next call."""
        patch = self.network.config.patch
        rows, columns = (side // cells for side, cells in zip(x_BFCHW.shape[-2:], patch, strict=True))
        table = self.network.table([*(before.positions if before else []), *positions], rows, columns)
        earlier = [] if before is None else _exchanges(before.cache)
        given = _Given(x_BFCHW, timestep_BF, text, table, before, earlier, _exchanges(cache))
        if not given.steady:
            return given.run(self.network)
        key = given.key()
        if key not in self._graphs:
            if len(self._graphs) >= KEPT:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = _Graph(self.network, given)
        graph = self._graphs[key]
        graph.take(given)
        if graph.calls < WARM:
            graph.calls += 1
            return _aside(graph.work)
        if graph.replay is None:
            graph.replay = self.record(graph.work)
        self.replayed += 1
        return graph.replay()


class _Given:
    """What a pass starts from."""

    def __init__(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        text: TextStates,
        table: RopeTable,
        before: Context | None,
        earlier: list[LayerExchange],
        later: list[LayerExchange],
    ) -> None:
        self.x, self.timestep, self.text, self.table, self.before = x, timestep, text, table, before
        self.earlier, self.later = earlier, later

    @property
    def steady(self) -> bool:
        """Whether the next pass of this kind is the same but for its tensors: all slots are visible, the sink's own
        frames are past, and every layer does the same.
        """
        return all(_steady(layers) for layers in (self.earlier, self.later) if layers)

    def run(self, network: CausalWan) -> torch.Tensor:
        before = None if self.before is None else replace(self.before, cache=self.earlier)
        v = network(self.x, self.timestep, self.text, table=self.table, cache=self.later, before=before)
        assert v is not None
        return v

    def tensors(self) -> list[torch.Tensor]:
        """All but the text's."""
        own = [self.x, self.timestep, *_of_table(self.table)]
        own += [] if self.before is None else [self.before.x0_BFCHW]
        for layers in filter(None, (self.earlier, self.later)):
            own += _of_moves(layers[0].moves)
        return own

    def of_text(self) -> list[torch.Tensor]:
        return [part for layer in self.text.layers for part in layer]

    def key(self) -> tuple:
        kinds = [(tuple(tensor.shape), tensor.dtype) for tensor in (*self.tensors(), *self.of_text())]
        settlings = [layers[0].moves.settling for layers in (self.earlier, self.later) if layers]
        return *kinds, *((len(settling.blends), settling.place is None) for settling in settlings)

    def copied(self) -> _Given:
        """The same on memory of its own."""
        own = iter([tensor.clone() for tensor in self.tensors()])
        x, timestep, table = next(own), next(own), _to_table(self.table, own)
        before = None if self.before is None else replace(self.before, x0_BFCHW=next(own))
        earlier, later = (_moved(layers, own) for layers in (self.earlier, self.later))
        text = replace(self.text, layers=[_copied(layer) for layer in self.text.layers])
        return _Given(x, timestep, text, table, before, earlier, later)


class _Graph:
    """One kind of pass on fixed memory."""

    def __init__(self, network: CausalWan, given: _Given) -> None:
        self.network, self.fixed, self.text = network, given.copied(), given.text
        self.calls = 0
        self.replay: Work | None = None

    def work(self) -> torch.Tensor:
        return self.fixed.run(self.network)

    def take(self, given: _Given) -> None:
        """Start from these tensors next."""
        for own, new in zip(self.fixed.tensors(), given.tensors(), strict=True):
            own.copy_(new)
        if given.text is not self.text:
            self.text = given.text
            for own, new in zip(self.fixed.of_text(), given.of_text(), strict=True):
                own.copy_(new)


def _exchanges(cache: Sequence) -> list[LayerExchange]:
    """Every layer's cache, taken to be run."""
    layers = list(cache)
    assert all(isinstance(layer, LayerExchange) for layer in layers), "a pass without gradients that writes"
    return layers


def _copied(tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.clone() for tensor in tensors)


def _steady(layers: list[LayerExchange]) -> bool:
    moves = layers[0].moves
    whole = isinstance(moves.seen, slice) and moves.seen == slice(0, layers[0].keys.data.shape[2])
    indexed = all(isinstance(rows, torch.Tensor) for rows, _ in moves.own)
    return whole and indexed and moves.sink_rows is None and all(layer.moves is moves for layer in layers)


def _of_table(table: RopeTable) -> list[torch.Tensor]:
    return [getattr(table, field.name) for field in fields(table)]


def _to_table(like: RopeTable, tensors: Iterator[torch.Tensor]) -> RopeTable:
    return type(like)(*(next(tensors) for _ in fields(like)))


def _of_moves(moves: Moves) -> list[torch.Tensor]:
    tensors = [rows for rows, _ in moves.own if isinstance(rows, torch.Tensor)]
    for rows, evicted, back in moves.settling.blends:
        tensors += [rows, evicted, *_of_table(back)]
    place = moves.settling.place
    return tensors + ([] if place is None else _of_table(place))


def _moved(layers: list[LayerExchange], tensors: Iterator[torch.Tensor]) -> list[LayerExchange]:
    """The layers' caches with moves on other tensors, in the order of `_of_moves`."""
    if not layers:
        return []
    moves = layers[0].moves
    own = tuple((next(tensors), source) for _, source in moves.own)
    settling = moves.settling
    blends = tuple((next(tensors), next(tensors), _to_table(back, tensors)) for _, _, back in settling.blends)
    place = None if settling.place is None else _to_table(settling.place, tensors)
    moved = replace(moves, own=own, settling=Settling(blends, place))
    return [
        LayerExchange(layer.keys, layer.values, layer.sink_k, layer.sink_v, layer.policy, moved) for layer in layers
    ]


def _aside(work: Work) -> torch.Tensor:
    """Run on a stream of its own, as a recording does, where there are streams."""
    if not torch.cuda.is_available():
        return work()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = work()
    torch.cuda.current_stream().wait_stream(stream)
    return result

"""Speed of the product's streaming loop against the released one and against its own floor: `python -m bench.ratios`.

For each size three sides take turns, block by block of the same video behind a full window, in CPU seconds of one
thread: the released loop written plainly (`plain_loop`), the product's (`Streamer` with text as `astro sample` encodes
it), and the floor, which is the product's own linear layers and attention on their own, shapes and number taken from a
block of it. Quotients are taken within a turn; the table has their median and the range of all turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.durable import write_text
from astro_cli.core import precision, threads
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import Streamer, StreamSpec, frame_noise
from bench.plain_loop import PlainLoop, plain_block

BLOCK, WINDOW, SINK, PROMPT, CHANNELS = 3, 12, 3, 128, 16  # latent frames; tokens of 512 that a prompt fills
RECORD = Path("results/performance.json")
T = TypeVar("T")
USES = ("x_T", "renoise-0", "renoise-1", "renoise-2")


@dataclass(frozen=True)
class Size:
    """A network with Wan 2.1's proportions: 3 heads of 128, feed-forward 35/6 of the width.

    Attributes:
        side: latent rows and columns, two to a token.
        text: width of the text encoder. Wan's 4,096 would make the text MLP, which the released loops run in every
            forward, a third of a network of this size, and 2 % of Wan's: 256 keeps its share.
        turns: that are timed.
    """

    side: int
    layers: int
    turns: int
    relative: bool = False
    text: int = 256

    @property
    def tokens(self) -> int:
        return (self.side // 2) ** 2

    def config(self) -> WanConfig:
        return WanConfig(dim=384, ffn_dim=2240, num_heads=3, num_layers=self.layers, text_dim=self.text)


SIZES = (
    Size(16, 8, 7),
    Size(16, 8, 5, relative=True),
    Size(16, 8, 5, text=4096),
    Size(32, 4, 3),
    Size(64, 2, 2),
)


@dataclass(frozen=True)
class SideTimes:
    """CPU seconds of each turn, and the largest difference between the two loops' videos."""

    tokens: int
    relative: bool
    text: int
    layers: int
    product: list[float]
    released: list[float]
    floor: list[float]
    difference: float

    def quotient(self, above: str, below: str) -> tuple[float, float, float]:
        """(median, least, largest) of a side's seconds over another's, turn by turn."""
        pairs = zip(getattr(self, above), getattr(self, below), strict=True)
        values = sorted(one / other for one, other in pairs)
        return statistics.median(values), values[0], values[-1]


class _Calls(TorchDispatchMode):
    """Notes every linear layer and every attention of what runs inside, by the shapes of its inputs."""

    KINDS = ("aten::addmm", "mkldnn::_linear_pointwise", "aten::_scaled_dot_product_flash_attention_for_cpu")

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, tuple[tuple[int, ...], ...], tuple[int, ...] | None]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        if name in self.KINDS:
            bias = (kwargs or {}).get("attn_mask")
            shapes = tuple(tuple(arg.shape) for arg in args[:3])
            self.made.append((name, shapes, None if bias is None else tuple(bias.shape)))
        return func(*args, **(kwargs or {}))


def floor_of(calls: _Calls) -> Callable[[], None]:
    """The same linear layers and attention again, on random numbers, and nothing else."""
    made: dict[tuple, Callable[[], torch.Tensor]] = {}
    for call in calls.made:
        if call not in made:
            made[call] = _again(*call)

    def again() -> None:
        for call in calls.made:
            made[call]()

    return again


def _again(name: str, shapes: tuple[tuple[int, ...], ...], mask: tuple[int, ...] | None) -> Callable[[], torch.Tensor]:
    if "attention" in name:
        q, k, v = (torch.randn(shape) for shape in shapes)
        bias = None if mask is None else torch.zeros(mask)
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    if name == "aten::addmm":  # bias, rows, weight transposed
        rows, weight = torch.randn(shapes[1]), torch.randn(shapes[2][::-1])
        bias = torch.randn(shapes[0])
    else:
        rows, weight = torch.randn(shapes[0]), torch.randn(shapes[1])
        bias = torch.randn(shapes[2])
    return lambda: torch.nn.functional.linear(rows, weight, bias)


def network_of(size: Size) -> tuple[CausalWan, torch.Tensor]:
    """Random weights, and text states (1, 512, D) that are zero past the prompt's end."""
    generator, config = torch.Generator().manual_seed(0), size.config()
    network = CausalWan(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    precision.install(network)  # as `load_arm` does
    text = torch.randn(1, config.text_len, config.text_dim, generator=generator)
    text[:, PROMPT:] = 0
    return network, text


def _beginnings(size: Size, network: CausalWan, text: torch.Tensor) -> tuple[Streamer, PlainLoop]:
    """Both loops as if their windows were full of empty frames, the newest block's context still to be written."""
    cache = CacheSpec(window=WINDOW, sink=SINK, relative=size.relative)
    shape = (CHANNELS, size.side, size.side)
    spec = StreamSpec(warp_timesteps((1000, 750, 500, 250), 5.0).float(), BLOCK, shape, cache)
    streamer = Streamer(network, network.encode_text(text), [0], spec)
    loop = PlainLoop(network, 1, (size.side // 2, size.side // 2), WINDOW, SINK, relative=size.relative)
    for start in range(0, WINDOW, BLOCK):
        streamer.cache.begin(start, BLOCK, write=True)
    newest = torch.zeros(1, BLOCK, *shape)
    streamer.frame, streamer._written = WINDOW, WINDOW - BLOCK
    streamer._recent.append(newest)
    loop.global_end.fill_(loop.size)
    loop.local_end.fill_(loop.size)
    loop.forward(newest, torch.zeros(1, BLOCK), text, WINDOW - BLOCK)
    return streamer, loop


@torch.no_grad()
def measure(size: Size) -> SideTimes:
    """The first block is not timed: it shows what a block computes."""
    network, text = network_of(size)
    streamer, loop = _beginnings(size, network, text)
    spec, calls, difference = streamer.spec, _Calls(), 0.0
    with calls:
        ours = streamer.next_block()
    floor = floor_of(calls)

    def released() -> torch.Tensor:
        start = streamer.frame - BLOCK
        noise = [frame_noise(spec, [0], range(start, start + BLOCK), use, network.device) for use in USES]
        return plain_block(loop, noise[0], spec.steps, text, start, lambda step: noise[step + 1])

    theirs, seconds = released(), {"product": [], "released": [], "floor": []}
    difference = (ours - theirs).abs().max().item()
    for _ in range(size.turns):
        ours, spent = _timed(streamer.next_block)
        seconds["product"].append(spent)
        with precision.streaming():
            seconds["floor"].append(_timed(floor)[1])
        theirs, spent = _timed(released)
        seconds["released"].append(spent)
        difference = max(difference, (ours - theirs).abs().max().item())
    return SideTimes(size.tokens, size.relative, size.text, size.layers, **seconds, difference=difference)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    done = work()
    return done, time.process_time() - began


def cells(measured: SideTimes) -> tuple[str, ...]:
    """Tokens a frame, positions, text width, released / product, product / floor, seconds, difference."""
    ratios = []
    for pair in (("released", "product"), ("product", "floor"), ("released", "floor")):
        median, least, largest = measured.quotient(*pair)
        ratios.append(f"{median:.2f} ({least:.2f} to {largest:.2f})")
    positions = "relative" if measured.relative else "absolute"
    seconds = [f"{statistics.median(getattr(measured, side)):.2f}" for side in ("product", "released", "floor")]
    turns = str(len(measured.product))
    return (
        f"{measured.tokens:,}",
        str(measured.layers),
        positions,
        f"{measured.text:,}",
        *ratios,
        " / ".join(seconds),
        turns,
        f"{measured.difference:.0e}",
    )


HEAD = (
    "tokens a frame",
    "layers",
    "positions",
    "text width",
    "released / product",
    "product / floor",
    "released / floor",
    "CPU s a block: product / released / floor",
    "turns",
    "largest difference",
)


def markdown(rows: list[SideTimes]) -> str:
    """The table of docs/performance.md."""
    lines = [HEAD, tuple("---:" for _ in HEAD), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows() -> list[tuple[str, str, str]]:
    """(measure, value, what is divided by what) of every size, for `make bench`."""
    table = []
    for measured in map(measure, SIZES):
        positions = "relative" if measured.relative else "absolute"
        what = f"{measured.tokens:,} tokens a frame, {positions} positions, text {measured.text:,} wide"
        for above, below in (("released", "product"), ("product", "floor")):
            median, least, largest = measured.quotient(above, below)
            seconds = (statistics.median(getattr(measured, side)) for side in (above, below))
            of = " / ".join(f"{side} {value:.2f} s" for side, value in zip((above, below), seconds, strict=True))
            table.append((f"{what}: {above} / {below}", f"{median:.2f} ({least:.2f} to {largest:.2f})", of))
        table.append((f"{what}: largest difference", f"{measured.difference:.0e}", "product - released"))
    return table


def read(path: Path = RECORD) -> list[SideTimes]:
    return [SideTimes(**row) for row in json.loads(path.read_text())["sizes"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help=f"write the measurement there, for example {RECORD}")
    arguments = parser.parse_args()
    threads.fit(threads.SMALL)
    rows = []
    for size in SIZES:
        rows.append(measure(size))
        print(markdown(rows[-1:]).splitlines()[-1], flush=True)
        if arguments.record is not None:
            about = {"torch": torch.__version__, "cpu": precision.cpu_name(), "precision": precision.probed().why}
            write_text(arguments.record, json.dumps(about | {"sizes": [asdict(row) for row in rows]}, indent=1) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()

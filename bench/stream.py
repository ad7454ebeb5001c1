"""What the streaming engine's context pass, cache and long streams cost; its speed is in `ratios`."""

from __future__ import annotations

import itertools
import statistics
import time

import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan, Context
from astro_cli.rollout.engine import Streamer, StreamSpec, new_cache

# dim 256 with a feed-forward of 4 x dim, 64 tokens per frame; text as in Wan 2.1: 512 tokens, 4096 wide, of which a
# prompt fills 128
BENCH, PROMPT = WanConfig(dim=256, ffn_dim=1024, num_heads=4, num_layers=8), 128
SHAPE, BLOCK, WINDOW, SINK, LONG_BLOCKS = (16, 16, 16), 3, 12, 3, 200


def bench_network() -> tuple[CausalWan, torch.Tensor]:
    """Random weights, and text states (1, 512, 4096) that are zero past the prompt's end."""
    generator = torch.Generator().manual_seed(0)
    network = CausalWan(BENCH).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    text = torch.randn(1, BENCH.text_len, BENCH.text_dim, generator=generator)
    text[:, PROMPT:] = 0
    return network, text


def spec_of(*, relative: bool) -> StreamSpec:
    return StreamSpec(
        warp_timesteps((1000, 750, 500, 250), 5.0).float(),
        BLOCK,
        SHAPE,
        CacheSpec(window=WINDOW, sink=SINK, relative=relative),
    )


@torch.no_grad()
def passes(*, relative: bool, repeats: int = 20) -> dict[str, float]:
    """What writing a block's context costs at a full window, in denoising passes, and the share of a pass's operations
    that must remain.

    Median seconds, in turn, of a denoising pass, a context pass on its own, and the engine's way: a denoising pass that
    takes the context of the block before it along, whose price is what it takes longer than a plain one. The remaining
    share counts the linear and attention operations of all blocks but the last, and the last block's keys and values:
    what a context pass cannot leave out, over what a denoising pass does.
    """
    network, text = bench_network()
    states, spec = network.encode_text(text), spec_of(relative=relative)
    cache, start = new_cache(network, 1, spec, None), 10 * WINDOW
    for block in range(0, start, BLOCK):
        cache.begin(block, BLOCK, write=True)
    x, timestep = (
        torch.randn(1, BLOCK, *SHAPE, generator=torch.Generator().manual_seed(1)),
        torch.full((1, BLOCK), 500.0),
    )
    seconds: dict[str, list[float]] = {"denoising": [], "alone": [], "joined": []}
    for turn, kind in itertools.product(range(repeats), ("joined", "denoising", "alone")):
        frame = (
            start + (2 * turn + (kind != "joined")) * BLOCK
        )  # joined and denoising are both the first pass of a block, which moves the sink
        earlier = cache.begin(frame - BLOCK, BLOCK, write=True) if kind == "joined" else None
        plan = cache.begin(frame, BLOCK, write=True)
        before = None if earlier is None else Context(x, earlier.positions, earlier)
        began = time.process_time()
        network(x, timestep, states, positions=plan.positions, cache=plan, context_only=kind == "alone", before=before)
        seconds[kind].append(time.process_time() - began)
    d, keys = BENCH.dim, WINDOW * cache.tokens
    layer = (
        6 * d * d + 2 * d * BENCH.ffn_dim + 2 * d * (keys + states.layers[0][0].shape[2])
    )  # multiplications per token
    needed = ((BENCH.num_layers - 1) * layer + 2 * d * d) / (BENCH.num_layers * layer)
    denoising, alone, joined = (statistics.median(seconds[kind]) for kind in ("denoising", "alone", "joined"))
    context = joined - denoising
    return {
        "denoising": denoising,
        "context": context,
        "ratio": context / denoising,
        "alone": alone / denoising,
        "needed": needed,
    }


@torch.no_grad()
def memory(*, relative: bool, frames: int = 10_002) -> dict[str, float]:
    """Bytes of the cache over the formula, of the sink's own copy over the formula, and growth over many frames (held
    bytes, end over beginning).
    """
    network, _ = bench_network()
    cache = new_cache(network, 1, spec_of(relative=relative), None)
    formula = 2 * BENCH.num_layers * WINDOW * cache.tokens * BENCH.dim * cache.k[0].element_size()
    before = cache.bytes + cache.sink_bytes
    for start in range(0, frames, BLOCK):
        cache.begin(start, BLOCK, write=True)
    return {
        "cache": cache.bytes / formula,
        "sink": cache.sink_bytes / formula,
        "growth": (cache.bytes + cache.sink_bytes) / before,
    }


@torch.no_grad()
def flatness(*, relative: bool, blocks: int = LONG_BLOCKS) -> float:
    """Median seconds per block of the last tenth over the first tenth of a long stream, once the window is full. At a
    smaller width, to be quick.

    Two streams take turns, one in its last tenth and one in its first, so that what the machine does besides slows both
    alike.
    """
    network = CausalWan(
        BENCH.model_copy(update={"dim": 64, "ffn_dim": 128, "num_layers": 2, "text_dim": 64})
    ).requires_grad_(False)
    old, young = (
        Streamer(
            network,
            network.encode_text(torch.zeros(1, BENCH.text_len, 64)),
            [0],
            spec_of(relative=relative),
        )
        for _ in range(2)
    )
    full, tenth = WINDOW // BLOCK, blocks // 10
    for _ in range(full + blocks - tenth):
        old.next_block()
    for _ in range(full):
        young.next_block()
    seconds: dict[Streamer, list[float]] = {old: [], young: []}
    for _, streamer in itertools.product(range(tenth), (old, young)):
        began = time.process_time()
        streamer.next_block()
        seconds[streamer].append(time.process_time() - began)
    return statistics.median(seconds[old]) / statistics.median(seconds[young])


@torch.no_grad()
def profile_block() -> dict[str, float]:
    """Shares of the engine's time per block by kind of operation, from torch's profiler."""
    network, text = bench_network()
    streamer = Streamer(network, network.encode_text(text), [0], spec_of(relative=False))
    for _ in range(WINDOW // BLOCK + 1):
        streamer.next_block()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        streamer.next_block()
    kinds = {
        "linear layers": ("addmm", "mm", "linear"),
        "attention": ("scaled_dot_product", "flash"),
        "GELU": ("gelu",),
        "norms": ("norm", "rsqrt", "pow", "mean"),
        "copies": ("copy_", "cat", "clone", "contiguous"),
    }
    spent = dict.fromkeys([*kinds, "other elementwise"], 0.0)
    kind_of = {word: kind for kind, words in kinds.items() for word in words}  # the first that an event's name holds
    for event in profiled.key_averages():
        kind = next((kind for word, kind in kind_of.items() if word in event.key), "other elementwise")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: value / total for kind, value in spent.items()}


def rows() -> list[tuple[str, str, str]]:
    """(measure, value, what is divided by what) of everything here."""
    table = []
    for relative in (False, True):
        keys = "relative" if relative else "absolute"
        passed, kv = passes(relative=relative), memory(relative=relative)
        table += [
            (
                f"{keys}: context, as the engine writes it",
                f"{passed['ratio']:.2f}",
                (
                    f"(joined pass - denoising pass) {passed['context']:.4f} s / denoising pass "
                    f"{passed['denoising']:.4f} s"
                ),
            ),
            (
                f"{keys}: context as a pass of its own",
                f"{passed['alone']:.2f}",
                f"the same block / denoising pass; operations that remain: {passed['needed']:.2f}",
            ),
            (f"{keys}: cache", f"{kv['cache']:.3f}", "bytes held / (bytes per latent frame x window)"),
            (
                f"{keys}: sink's un-rotated copy",
                f"{kv['sink']:.3f}",
                "bytes held / (bytes per latent frame x window)",
            ),
            (f"{keys}: growth over 10,000 frames", f"{kv['growth']:.3f}", "bytes after / bytes before"),
            (
                f"{keys}: time per block",
                f"{flatness(relative=relative):.3f}",
                f"last tenth / first tenth of {LONG_BLOCKS} blocks, window full",
            ),
        ]
    return table + [
        (f"profile: {kind}", f"{share:.0%}", "share of a block's time") for kind, share in profile_block().items()
    ]

"""Streaming speed against a yardstick: the released algorithm written plainly. Only this benchmark and tests use the
yardstick.

`PlainLoop` does what the released loops of Self-Forcing, LongLive and Reward Forcing do: the cache is a buffer shifted
by a copy with clones, its pointers are tensors read with item(), RoPE is applied in complex128 and its table gathered
anew in every layer and pass (over the whole buffer with relative positions), text MLP and cross-attention keys are
computed in every forward, and the context pass computes the head. It shares only weights with `CausalWan`, no code of
its attention, cache or engine, so it is also an independent reference for tests.
Dimensions: B sample, F latent frame, C channel, H, W rows and columns, L token, N attention head, D head width.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import cast

import torch
from torch.nn import functional

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.attention import Attention
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan, Context, WanBlock
from astro_cli.rollout.engine import Streamer, StreamSpec, frame_noise, new_cache

# dim 256 with a feed-forward of 4 x dim, 64 tokens per frame; text as in Wan 2.1: 512 tokens, 4096 wide, of which a
# prompt fills 128
BENCH, PROMPT = WanConfig(dim=256, ffn_dim=1024, num_heads=4, num_layers=8), 128
SHAPE, BLOCK, WINDOW, SINK, BLOCKS, REPEATS = (16, 16, 16), 3, 12, 3, 7, 3
SAME_VIDEO, LONG_BLOCKS = 2e-4, 200


class PlainLoop:
    """The released streaming loop on a network's weights.

    Args:
        window: latent frames the buffer holds; the whole video where there is none.
        relative: keys un-rotated, positions by place in the buffer (Reward Forcing, LongLive's infinite attention).
        alpha: EMA sink, blended when the evicted frames are as many as the sink's.
        cross_every_forward: recompute text states and cross-attention keys in every forward; else once (to tell the
            parts of the ratio apart).
    """

    def __init__(
        self,
        network: CausalWan,
        batch: int,
        grid: tuple[int, int],
        window: int,
        sink: int = 0,
        *,
        relative: bool = False,
        alpha: float | None = None,
        cross_every_forward: bool = True,
    ) -> None:
        config = network.config
        self.network, self.grid, self.tokens = network, grid, grid[0] * grid[1]
        self.sink, self.size, self.relative, self.alpha = sink * self.tokens, window * self.tokens, relative, alpha
        self.cross_every_forward, self.cross = cross_every_forward, []
        self.protected = 0  # first slots that passes leave as they are: the sink, in a recache that keeps it
        shape = (config.num_layers, batch, self.size, config.num_heads, config.head_dim)
        self.k, self.v = torch.zeros(shape), torch.zeros(shape)
        self.global_end = torch.zeros(config.num_layers, dtype=torch.long)
        self.local_end = torch.zeros(config.num_layers, dtype=torch.long)

    def forward(
        self, x_BFCHW: torch.Tensor, timestep_BF: torch.Tensor, text_BMD: torch.Tensor, start: int
    ) -> torch.Tensor:
        """Velocity (B, F, C, H, W) of the frames from `start` on; their keys and values are written."""
        net, config = self.network, self.network.config
        frames = x_BFCHW.shape[1]
        x = net.patch_embedding(x_BFCHW.transpose(1, 2)).flatten(2).transpose(1, 2)
        embedder = net.condition_embedder
        half = config.freq_dim // 2
        angle = timestep_BF.double()[..., None] * 10000.0 ** (-torch.arange(half).double() / half)
        time_ = embedder.time_embedder(torch.cat((angle.cos(), angle.sin()), -1).float())
        modulation = embedder.time_proj(functional.silu(time_)).unflatten(-1, (6, -1))
        if self.cross_every_forward or not self.cross:
            states = embedder.text_embedder(text_BMD)
            self.cross = [self._cross_keys(block, states) for block in cast(list[WanBlock], list(net.blocks))]
        for index, block in enumerate(cast(list[WanBlock], list(net.blocks))):
            m = (block.scale_shift_table + modulation).unsqueeze(3).unbind(2)
            y = self._modulated(x, m[1], m[0])
            x = x + self._per_frame(self._self_attention(index, block.attn1, y, start, frames), m[2])
            x = x + self._cross_attention(block, block.norm2(x), self.cross[index])
            x = x + self._per_frame(block.ffn(self._modulated(x, m[4], m[3])), m[5])
        shift, scale = (net.scale_shift_table + time_.unsqueeze(2)).unsqueeze(3).unbind(2)
        out = net.proj_out(self._modulated(x, scale, shift))
        out = out.view(len(x), frames, *self.grid, *config.patch, config.in_channels)
        return torch.einsum("bfhwpqc->bfchpwq", out).reshape(x_BFCHW.shape)

    def _modulated(self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        y = functional.layer_norm(x, x.shape[-1:], eps=self.network.config.eps)
        return (y.unflatten(1, (scale.shape[1], -1)) * (1 + scale) + shift).flatten(1, 2)

    def _per_frame(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return (x.unflatten(1, (gate.shape[1], -1)) * gate).flatten(1, 2)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.network.config.num_heads, -1))

    def _cross_keys(self, block: WanBlock, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._heads(block.attn2.norm_k(block.attn2.to_k(states))), self._heads(block.attn2.to_v(states))

    def _cross_attention(
        self, block: WanBlock, x: torch.Tensor, keys_values: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        q = self._heads(block.attn2.norm_q(block.attn2.to_q(x)))
        return block.attn2.to_out[0](_attend(q, *keys_values))

    def _self_attention(
        self, layer: int, attention: Attention, x: torch.Tensor, start: int, frames: int
    ) -> torch.Tensor:
        q, k = self._heads(attention.norm_q(attention.to_q(x))), self._heads(attention.norm_k(attention.to_k(x)))
        v = self._heads(attention.to_v(x))
        if not self.relative:
            q, k = self._rotate(q, start), self._rotate(k, start)
        end = self._write(layer, k, v, start * self.tokens)
        keys, values = self.k[layer, :, :end], self.v[layer, :, :end]
        if self.relative:
            q, keys = self._rotate(q, end // self.tokens - frames), self._rotate(keys, 0)
        return attention.to_out[0](_attend(q, keys, values))

    def _write(self, layer: int, k: torch.Tensor, v: torch.Tensor, start: int) -> int:
        """Write a block into the last slots, shifting the buffer where it is full; returns the filled length."""
        new, end = k.shape[1], start + k.shape[1]
        k_buffer, v_buffer = self.k[layer], self.v[layer]
        over = int(self.local_end[layer].item()) + new - self.size
        if end > self.global_end[layer].item() and over > 0:
            filled = int(self.local_end[layer].item())
            gone = slice(self.sink, self.sink + over)
            for buffer in (k_buffer, v_buffer):
                if self.alpha is not None and over == self.sink:
                    buffer[:, : self.sink] = (
                        self.alpha * buffer[:, : self.sink] + (1 - self.alpha) * buffer[:, gone].clone()
                    )
                buffer[:, self.sink : filled - over] = buffer[:, self.sink + over : filled].clone()
            self.local_end[layer] = self.size
        else:
            self.local_end[layer] += max(0, end - int(self.global_end[layer].item()))
        local = int(self.local_end[layer].item())
        begin = max(local - new, self.protected)
        k_buffer[:, begin:local], v_buffer[:, begin:local] = k[:, begin - local + new :], v[:, begin - local + new :]
        self.global_end[layer] = max(end, int(self.global_end[layer].item()))
        return local

    def _rotate(self, x_BLND: torch.Tensor, first: int) -> torch.Tensor:
        """Complex128 rotation of whole frames at positions from `first` on, table and all."""
        rows, columns = self.grid
        frames, width = x_BLND.shape[1] // self.tokens, x_BLND.shape[-1]
        spatial = 2 * (width // 6)
        axes = []
        for axis, (positions, channels) in enumerate(
            ((range(first, first + frames), width - 2 * spatial), (range(rows), spatial), (range(columns), spatial))
        ):
            angle = torch.tensor(list(positions)).double()[:, None] * 10000.0 ** (
                -torch.arange(0, channels, 2).double() / channels
            )
            shape = [1, 1, 1, -1]
            shape[axis] = len(positions)
            axes.append(torch.polar(torch.ones_like(angle), angle).view(shape).expand(frames, rows, columns, -1))
        table = torch.cat(axes, -1).view(1, -1, 1, width // 2)
        return (
            torch.view_as_real(torch.view_as_complex(x_BLND.double().unflatten(-1, (-1, 2))) * table)
            .flatten(-2)
            .to(x_BLND.dtype)
        )


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    out = functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)


@torch.no_grad()
def plain_block(
    loop: PlainLoop,
    x_BFCHW: torch.Tensor,
    steps: torch.Tensor,
    text_BMD: torch.Tensor,
    start: int,
    renoise: Callable[[int], torch.Tensor],
    seen: Callable[[int, torch.Tensor, torch.Tensor], None] = lambda step, x_t, flow: None,
) -> torch.Tensor:
    """x0 of one block: the few steps, then a full forward at t = 0 that rewrites the cache.

    `seen` is shown each step's input and velocity.
    """
    x, x0 = x_BFCHW, x_BFCHW
    for index, step in enumerate(steps):
        timestep = step.expand(x.shape[:2])
        flow = loop.forward(x, timestep, text_BMD, start)
        seen(index, x, flow)
        x0 = (x.double() - step.double() / 1000 * flow.double()).to(x.dtype)
        if index + 1 < len(steps):
            sigma = (steps[index + 1] / 1000).to(x.dtype)
            x = (1 - sigma) * x0 + sigma * renoise(index)
    loop.forward(x0, torch.zeros(x.shape[:2]), text_BMD, start)
    return x0


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
def race(
    *, relative: bool, cross_every_forward: bool = True, blocks: int = BLOCKS, repeats: int = REPEATS
) -> dict[str, float]:
    """Stream the same videos with the engine and with the yardstick, block by block in turn.

    Returns:
        median seconds per block of each once the window is full, their ratio, and the largest difference of the videos.
    """
    network, text = bench_network()
    spec = spec_of(relative=relative)
    grid = (SHAPE[1] // BENCH.patch[0], SHAPE[2] // BENCH.patch[1])
    seconds: dict[str, list[float]] = {"ours": [], "yardstick": []}
    difference = 0.0
    for repeat in range(repeats):
        streamer = Streamer(network, network.encode_text(text, fold_padding=True), [repeat], spec)
        loop = PlainLoop(network, 1, grid, WINDOW, SINK, relative=relative, cross_every_forward=cross_every_forward)
        for start in range(0, blocks * BLOCK, BLOCK):
            began = time.process_time()
            ours = streamer.next_block()
            middle = time.process_time()
            frames = range(start, start + BLOCK)
            noise = [
                frame_noise(spec, [repeat], frames, use, network.device)
                for use in ("x_T", "renoise-0", "renoise-1", "renoise-2")
            ]
            theirs = plain_block(loop, noise[0], spec.steps, text, start, lambda step, noise=noise: noise[step + 1])
            if start >= WINDOW:
                seconds["ours"].append(middle - began)
                seconds["yardstick"].append(time.process_time() - middle)
            difference = max(difference, (ours - theirs).abs().max().item())
    ours, yardstick = (statistics.median(seconds[key]) for key in ("ours", "yardstick"))
    return {"ours": ours, "yardstick": yardstick, "ratio": yardstick / ours, "difference": difference}


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
    states, spec = network.encode_text(text, fold_padding=True), spec_of(relative=relative)
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
            network.encode_text(torch.zeros(1, BENCH.text_len, 64), fold_padding=True),
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
    streamer = Streamer(network, network.encode_text(text, fold_padding=True), [0], spec_of(relative=False))
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
        raced = race(relative=relative)
        assert raced["difference"] <= SAME_VIDEO, "engine and yardstick must make the same video"
        text_once = race(relative=relative, cross_every_forward=False, repeats=1)
        passed, kv = passes(relative=relative), memory(relative=relative)
        table += [
            (
                f"{keys}: speed over the yardstick",
                f"{raced['ratio']:.2f}",
                f"yardstick {raced['yardstick']:.3f} s / engine {raced['ours']:.3f} s",
            ),
            (
                f"{keys}: of it without the text",
                f"{text_once['ratio']:.2f}",
                "the same, the yardstick's text states and keys computed once",
            ),
            (f"{keys}: difference of the videos", f"{raced['difference']:.1e}", "largest, engine - yardstick"),
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

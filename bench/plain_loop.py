"""The released streaming algorithm written plainly: the yardstick of `bench.stream`, and a reference for tests.

`PlainLoop` does what the released loops of Self-Forcing, LongLive and Reward Forcing do: the cache is a buffer shifted
by a copy with clones, its pointers are tensors read with item(), RoPE is applied in complex128 with rows gathered from
one table of frequencies in every layer and pass (over the whole buffer with relative positions), the text MLP runs in
every forward, and the context pass computes the head. It keeps what they keep: cross-attention keys and values from the
first forward on, and the table of frequencies. It shares only weights with `CausalWan`, no code of its attention, cache
or engine, so it is also an independent reference for tests.
Dimensions: B sample, F latent frame, C channel, H, W rows and columns, L token, N attention head, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch.nn import functional

from astro_cli.models.wan.attention import Attention
from astro_cli.models.wan.transformer import CausalWan, WanBlock

POSITIONS = 1024  # of the released table


class PlainLoop:
    """The released streaming loop on a network's weights.

    Args:
        window: latent frames the buffer holds; the whole video where there is none.
        relative: keys un-rotated, positions by place in the buffer (Reward Forcing, LongLive's infinite attention).
        alpha: EMA sink, blended when the evicted frames are as many as the sink's.
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
    ) -> None:
        config = network.config
        self.network, self.grid, self.tokens = network, grid, grid[0] * grid[1]
        self.sink, self.size, self.relative, self.alpha = sink * self.tokens, window * self.tokens, relative, alpha
        self.cross: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.frequencies = _frequencies(config.head_dim)
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
        states = embedder.text_embedder(text_BMD)
        if not self.cross:
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

    def switch(self) -> None:
        """Forget the old prompt, as LongLive's released code does: cross-attention keys are made again."""
        self.cross = []

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
        """Complex128 rotation of whole frames at positions from `first` on."""
        rows, columns = self.grid
        frames, width = x_BLND.shape[1] // self.tokens, x_BLND.shape[-1]
        time, height, width_ = self.frequencies
        parts = (
            time[first : first + frames].view(frames, 1, 1, -1).expand(frames, rows, columns, -1),
            height[:rows].view(1, rows, 1, -1).expand(frames, rows, columns, -1),
            width_[:columns].view(1, 1, columns, -1).expand(frames, rows, columns, -1),
        )
        table = torch.cat(parts, -1).view(1, -1, 1, width // 2)
        return (
            torch.view_as_real(torch.view_as_complex(x_BLND.double().unflatten(-1, (-1, 2))) * table)
            .flatten(-2)
            .to(x_BLND.dtype)
        )


def _frequencies(head_dim: int) -> list[torch.Tensor]:
    """Rotations of the released table's 1,024 positions, for time, rows and columns."""
    spatial, tables = 2 * (head_dim // 6), []
    for channels in (head_dim - 2 * spatial, spatial, spatial):
        frequency = 10000.0 ** (-torch.arange(0, channels, 2).double() / channels)
        angle = torch.arange(POSITIONS).double()[:, None] * frequency
        tables.append(torch.polar(torch.ones_like(angle), angle))
    return tables


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

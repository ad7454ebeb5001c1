"""CausalWan: the one transformer of teacher and student, Wan 2.1's architecture at any size.

Owns the network. Attention masks (`masks`), the rolling cache (`astro_cli.cache`) and the text encoder come from
outside, so the same weights run bidirectionally (the teacher), block-causally (training) and cached (streaming).
Parameter names are those of diffusers' `WanTransformer3DModel`.
Source: Wan 2.1 (arXiv 2503.20314) and its released code.
Dimensions: B sample, F latent frame, C latent channel, H, W latent rows and columns, P token per frame, L = F P token,
M text token.

Deviations: float32 modulation, norms and head whatever the weights' dtype (the released causal code runs them in
bfloat16); the text is projected and its cross-attention keys computed once per prompt (`encode_text`), not once per
forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from astro_cli.models.wan.attention import Attention, Joined, LayerCache
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.linear import linear_gelu
from astro_cli.models.wan.rope import RopeTable, Span, rope_table

KEPT_TABLES = 8  # passes at one time use a few sets of positions; a table of 21 frames at 480 x 832 has 17 MB


@dataclass
class TextStates:
    """Projected text of a batch: per layer the cross-attention keys and values (B, heads, M, D). Made once per prompt.

    A layer's third entry, where there is one, is added to the attention scores (B, 1, 1, M): it weighs a key that
    stands for many. They keep the encoder's states, so that they can be recomputed when the weights have changed.
    """

    layers: list[tuple[torch.Tensor, ...]]
    source_BMD: torch.Tensor
    folded: bool

    @property
    def batch(self) -> int:
        return self.layers[0][0].shape[0]

    def select(self, rows: torch.Tensor | list[int]) -> TextStates:
        layers = []
        for layer in self.layers:
            layers.append(tuple(part[rows] for part in layer))
        return TextStates(layers, self.source_BMD[rows], self.folded)


@dataclass(frozen=True)
class Context:
    """A finished block whose keys and values the pass over the next block writes as well.

    Attributes:
        x0_BFCHW: its clean latents, seen at t = 0.
        positions, cache: as `CausalWan.forward` takes them, for this block.
    """

    x0_BFCHW: torch.Tensor
    positions: list[int]
    cache: Sequence[LayerCache]


def fold(text_BMD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """States with one padding row per prompt, and the float32 bias (B, 1, 1, M') of their scores; states as they are,
    and None, where nothing is padded.
    """
    length = text_BMD.shape[1]
    used = torch.arange(1, length + 1, device=text_BMD.device) * text_BMD.ne(0).any(-1)
    used_B = used.amax(1)  # rows up to a prompt's end
    kept = int(used_B.max()) + 1
    if kept >= length:
        return text_BMD, None
    row = torch.arange(kept, device=text_BMD.device)
    padding_B1 = (length - used_B)[:, None]
    bias_BM = torch.where(
        row < used_B[:, None], 0.0, torch.where(row == used_B[:, None], padding_B1.float().log(), float("-inf"))
    )
    return text_BMD[:, :kept], bias_BM[:, None, None]


def sinusoid(timestep: torch.Tensor, width: int) -> torch.Tensor:
    """[cos(t w_i), sin(t w_i)], w_i = 10000^(-2i / width), in float64: cosines first. (...,) -> (..., width)."""
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angle = timestep.double()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class _Embedding(nn.Module):
    """Two linear layers with an activation between: time (SiLU) and text (GELU, tanh form)."""

    def __init__(self, width_in: int, dim: int, text: bool) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, dim)
        self.linear_2 = nn.Linear(dim, dim)
        self.text = text

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear_1(x)
        return self.linear_2(functional.gelu(x, approximate="tanh") if self.text else functional.silu(x))


class _ConditionEmbedder(nn.Module):
    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.time_embedder = _Embedding(config.freq_dim, config.dim, text=False)
        self.time_proj = nn.Linear(config.dim, 6 * config.dim)
        self.text_embedder = _Embedding(config.text_dim, config.dim, text=True)


class _GELU(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear_gelu(self.proj, x)


class _FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([_GELU(dim, inner), nn.Identity(), nn.Linear(inner, dim)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net[2](self.net[0](x))


class WanBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; shift, scale and gate per frame from the timestep."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        dim, eps = config.dim, config.eps
        self.attn1 = Attention(dim, config.num_heads, eps)
        self.attn2 = Attention(dim, config.num_heads, eps)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.ffn = _FeedForward(dim, config.ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)
        self.eps = eps

    def forward(
        self,
        x_BFPC: torch.Tensor,
        modulation_BF6C: torch.Tensor,
        text_kv: tuple[torch.Tensor, ...],
        table: RopeTable,
        mask: torch.Tensor | None,
        cache: LayerCache | Joined | None,
    ) -> torch.Tensor:
        shape = x_BFPC.shape
        m = (self.scale_shift_table.float() + modulation_BF6C).unsqueeze(3).unbind(2)  # six of (B, F, 1, C)
        y = modulate(x_BFPC, m[0], m[1], self.eps).flatten(1, 2)
        x_BFPC = gated(x_BFPC, self.attn1.self_attention(y, table, mask, cache).view(shape), m[2])
        x_BFPC = x_BFPC + self.attn2.cross_attention(self.norm2(x_BFPC).flatten(1, 2), text_kv).view(shape)
        return gated(x_BFPC, self.ffn(modulate(x_BFPC, m[3], m[4], self.eps)), m[5])

    def text_keys_values(self, text_BMC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-attention keys and values (B, H, M, D) of projected text states."""
        return self.attn2.keys_values(text_BMC)

    def keys_values_only(
        self, x_BFPC: torch.Tensor, modulation_BF6C: torch.Tensor, table: RopeTable, cache: LayerCache
    ) -> None:
        """What a context pass needs of the last layer: its keys and values in the cache."""
        m = (self.scale_shift_table.float() + modulation_BF6C).unsqueeze(3).unbind(2)
        cache.exchange(*self.attn1.keys_values(modulate(x_BFPC, m[0], m[1], self.eps).flatten(1, 2)), table)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """LayerNorm(x) (1 + scale) + shift without affine weights, float32 inside."""
    y = functional.layer_norm(x.float(), (x.shape[-1],), eps=eps)
    if torch.is_grad_enabled():
        return (y * (1 + scale) + shift).to(x.dtype)
    return y.mul_(1 + scale).add_(shift).to(x.dtype)  # the same bits, with less memory traffic


def gated(x: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """x + gate update, float32 inside; without gradients it overwrites `update`."""
    if torch.is_grad_enabled():
        return (x.float() + update.float() * gate).to(x.dtype)
    return update.float().mul_(gate).add_(x).to(x.dtype)


class CausalWan(nn.Module):
    """Velocity predictor v = eps - x0 for latent videos.

    Attributes:
        span: rows and columns of tokens that a frame's positions are stretched to (`rope.rope_table`).
    """

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.in_channels + config.extra_channels
        self.patch_embedding = nn.Conv3d(channels, config.dim, (1, *config.patch), (1, *config.patch))
        self.condition_embedder = _ConditionEmbedder(config)
        self.blocks = nn.ModuleList(WanBlock(config) for _ in range(config.num_layers))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)
        self.proj_out = nn.Linear(config.dim, config.patch[0] * config.patch[1] * config.in_channels)
        self.gradient_checkpointing = False
        self.compiled = False  # its blocks, by `compiled.compile_blocks`
        self.span: Span | None = None
        self._tables: dict[tuple, RopeTable] = {}

    @property
    def device(self) -> torch.device:
        return self.proj_out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.scale_shift_table.dtype

    @property
    def _layers(self) -> list[WanBlock]:
        return cast(list[WanBlock], list(self.blocks))

    def tokens_per_frame(self, height: int, width: int) -> int:
        return (height // self.config.patch[0]) * (width // self.config.patch[1])

    def encode_text(self, text_BMD: torch.Tensor, *, fold_padding: bool | None = None) -> TextStates:
        """Text encoder states (B, M, text_dim), zero past the prompt's end -> keys and values of every layer.

        Args:
            fold_padding: let one key stand for all of a prompt's padding, whose keys are equal, with the logarithm of
                their number added to its score. The same attention up to rounding, over as many keys as the longest
                prompt needs. Default: on a CPU; a GPU's fastest attention takes nothing that is added to scores.
        """
        bias, source_BMD = None, text_BMD
        fold_padding = text_BMD.device.type == "cpu" if fold_padding is None else fold_padding
        if fold_padding:
            text_BMD, bias = fold(text_BMD)
        states = self.condition_embedder.text_embedder(text_BMD.to(self.dtype))
        keys_values = [block.text_keys_values(states) for block in self._layers]
        layers = [(k, v) if bias is None else (k, v, bias) for k, v in keys_values]
        return TextStates(layers, source_BMD, fold_padding)

    def forward(
        self,
        x_BFCHW: torch.Tensor,
        timestep_BF: torch.Tensor,
        text: TextStates,
        *,
        positions: list[int] | range | None = None,
        table: RopeTable | None = None,
        mask: torch.Tensor | None = None,
        cache: Sequence[LayerCache] | None = None,
        context_only: bool = False,
        before: Context | None = None,
        depth: int | None = None,
    ) -> torch.Tensor | None:
        """Predict the velocity.

        Args:
            x_BFCHW: noisy latents; behind their channels those of conditions, where the model has some.
            timestep_BF: per frame, in [0, 1000].
            text: from `encode_text`, for the same batch.
            positions: temporal position of each frame; default 0 .. F-1.
            table: their rotation, instead of positions; of `before`'s frames too, first.
            mask: (L, keys) bool, True = visible; None = every query sees every key.
            cache: one layer cache per layer; the keys are then what each cache returns, else those of this pass.
            context_only: fill the cache and return None; skips the head and all of the last layer but its keys and
                values.
            before: the block before this one, of which only keys and values are wanted: what a `context_only` pass over
                it would do, in the same matrix products. Needs `cache`, and no gradients.
            depth: stop after that many blocks and return the tokens (B, F, P, dim) there.

        Returns:
            Velocity (B, F, C, H, W) in x's dtype; C are the latent's channels.
        """
        places, dtype = positions if positions is not None else range(x_BFCHW.shape[1]), x_BFCHW.dtype
        joined, earlier = cache, 0  # frames of `before` go first
        if before is not None:
            assert cache is not None
            assert not (torch.is_grad_enabled() and self.gradient_checkpointing), "a joined pass is for streaming"
            earlier = before.x0_BFCHW.shape[1]
            x_BFCHW, places = torch.cat((before.x0_BFCHW.to(dtype), x_BFCHW), 1), [*before.positions, *places]
            timestep_BF = functional.pad(timestep_BF, (earlier, 0))
            tokens = earlier * self.tokens_per_frame(*x_BFCHW.shape[-2:])
            joined = [Joined(tokens, *pair) for pair in zip(before.cache, cache, strict=True)]
        height, width = x_BFCHW.shape[-2:]
        rows, columns = height // self.config.patch[0], width // self.config.patch[1]
        table = table if table is not None else self.table(places, rows, columns)
        x = self.patch_embedding(x_BFCHW.to(self.dtype).transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)  # B F P C
        time, modulation = self._time(timestep_BF)
        last = len(self.blocks) - 1
        for index, block in enumerate(self._layers):
            layer_cache = None if joined is None else joined[index]
            if context_only and index == last:
                # Taken once: who takes a layer's cache settles its sink.
                assert layer_cache is not None
                assert not isinstance(layer_cache, Joined)
                block.keys_values_only(x, modulation, table, layer_cache)
                return None
            if isinstance(layer_cache, Joined) and index == last:
                tokens, layer_cache, first = layer_cache.tokens, layer_cache.later, layer_cache.earlier
                block.keys_values_only(x[:, :earlier], modulation[:, :earlier], table.tokens(0, tokens), first)
                x, time, modulation, table = (
                    x[:, earlier:],
                    time[:, earlier:],
                    modulation[:, earlier:],
                    table.tokens(tokens, len(table.cos)),
                )
            arguments = (x, modulation, text.layers[index], table, mask, layer_cache)
            recompute = self.gradient_checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, *arguments, use_reentrant=False) if recompute else block(*arguments)
            if depth == index + 1:
                return x
        return self._head(x, time, rows, columns).to(dtype)

    def _time(self, timestep_BF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Time embedding (B, F, dim) and its six-fold projection (B, F, 6, dim), float32."""
        embedder = self.condition_embedder
        time = embedder.time_embedder(sinusoid(timestep_BF, self.config.freq_dim).to(self.dtype))
        modulation = embedder.time_proj(functional.silu(time)).unflatten(-1, (6, -1))
        return time.float(), modulation.float()

    def _head(self, x_BFPC: torch.Tensor, time: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        shift, scale = (self.scale_shift_table.float() + time.unsqueeze(2)).unsqueeze(3).unbind(2)
        x = self.proj_out(modulate(x_BFPC, shift, scale, self.config.eps))
        ph, pw = self.config.patch
        x = x.unflatten(2, (rows, columns)).unflatten(-1, (ph, pw, -1))  # B F rows columns ph pw C, channel fastest
        return x.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def table(self, positions: list[int] | range, rows: int, columns: int) -> RopeTable:
        """Rotation of the tokens of frames at these temporal positions; the newest ones are kept."""
        key = (tuple(positions), rows, columns, self.device, self.span)
        if key not in self._tables:
            if len(self._tables) > KEPT_TABLES:  # a stream asks for new positions with every block; old tables are dead
                self._tables.clear()
            self._tables[key] = rope_table(positions, rows, columns, self.config.head_dim, self.device, self.span)
        return self._tables[key]

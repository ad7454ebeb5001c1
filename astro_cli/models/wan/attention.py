"""Self- and cross-attention of Wan 2.1. Owns projections and norms; masks, positions and the cache come from outside.

Parameter names are those of diffusers' `WanTransformer3DModel` (attn1 / attn2: to_q, to_k, to_v, to_out.0, norm_q,
norm_k).
Dimensions: B sample, L query token, M text token, H head, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from astro_cli.models.wan.rope import RopeTable, rotate


class LayerCache(Protocol):
    """What attention asks of one layer's key/value cache: take this pass's keys and values, return all visible ones,
    rotated.
    """

    def exchange(
        self, k_BHLD: torch.Tensor, v_BHLD: torch.Tensor, table: RopeTable
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


@runtime_checkable
class SharedCache(Protocol):
    """A layer cache that may attend itself, without handing out keys that several samples share."""

    def attend(
        self, q_BHLD: torch.Tensor, k_BHLD: torch.Tensor, v_BHLD: torch.Tensor, table: RopeTable
    ) -> torch.Tensor | None:
        """Attention (B, H, L, D) of rotated queries to all visible keys; None, and nothing done, where it cannot."""
        ...


@dataclass(frozen=True)
class Joined:
    """One layer's caches for two consecutive blocks in one pass: the first `tokens` tokens are the earlier block's.

    The earlier block exchanges and attends first, so it sees what it would in a pass of its own, before the later one
    evicts anything.
    """

    tokens: int
    earlier: LayerCache
    later: LayerCache


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole width (all heads together), float32 inside."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Multi-head attention with RMS-normalised queries and keys; scale 1 / sqrt(D)."""

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)

    def heads(self, x_BLC: torch.Tensor) -> torch.Tensor:
        return x_BLC.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys_values(self, x_BLC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised keys and values (B, H, L, D), before any rotation."""
        return self.heads(self.norm_k(self.to_k(x_BLC))), self.heads(self.to_v(x_BLC))

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def merge(self, *parts_BHLD: torch.Tensor) -> torch.Tensor:
        """Heads side by side, parts one after the other, then the output projection (B, L, C)."""
        # Attention returns this order, so nothing is copied.
        merged = [part.transpose(1, 2).flatten(-2) for part in parts_BHLD]
        return self.to_out[0](merged[0] if len(merged) == 1 else torch.cat(merged, 1))

    def self_attention(
        self, x_BLC: torch.Tensor, table: RopeTable, mask: torch.Tensor | None, cache: LayerCache | Joined | None
    ) -> torch.Tensor:
        q = rotate(self.heads(self.norm_q(self.to_q(x_BLC))), table)
        k, v = self.keys_values(x_BLC)
        if cache is None:
            return self.merge(self.attend(q, rotate(k, table), v, mask))
        if mask is None and isinstance(cache, SharedCache) and (out := cache.attend(q, k, v, table)) is not None:
            return self.merge(out)
        if not isinstance(cache, Joined):
            return self.merge(self.attend(q, *cache.exchange(k, v, table), mask))
        assert mask is None, "the blocks of a joined pass see what their caches return"
        parts = []
        for part, own in ((slice(0, cache.tokens), cache.earlier), (slice(cache.tokens, x_BLC.shape[1]), cache.later)):
            seen = own.exchange(k[:, :, part], v[:, :, part], table.tokens(part.start, part.stop))
            parts.append(self.attend(q[:, :, part], *seen))
        return self.merge(*parts)

    def cross_attention(self, x_BLC: torch.Tensor, text_kv: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Attend to all text positions, padding included: Wan has no mask here, and the padding's constant vector
        matters.

        text_kv: keys, values, and where padding is folded what is added to the scores.
        """
        return self.merge(self.attend(self.heads(self.norm_q(self.to_q(x_BLC))), *text_kv))

"""Keys and values of a whole clean video, recorded in one pass and then read by another: teacher forcing with a frozen
context.

Where `kv.KVCache` rolls, this holds one clip: the recording pass runs block-causally over the clean latents; the
reading pass denoises all blocks at once, each attending to the clean blocks before it (`masks.teacher_forcing_mask`).
Recorded keys and values carry no gradients. `NoisedContext` is the released code's pass without a cache.
"""

from __future__ import annotations

from copy import copy

import torch

from astro_cli.models.wan.masks import block_causal_mask, teacher_forcing_mask
from astro_cli.models.wan.rope import RopeTable, rotate
from astro_cli.models.wan.transformer import CausalWan, TextStates


class ContextCache(list):
    """One entry per layer; a first pass fills it, later passes read it."""

    def __init__(self, layers: int) -> None:
        super().__init__(_LayerContext() for _ in range(layers))

    def select(self, rows: torch.Tensor) -> ContextCache:
        """Of the samples at these rows."""
        selected = ContextCache(0)
        selected.extend(layer.select(rows) for layer in self)
        return selected


class _LayerContext:
    def __init__(self) -> None:
        self.recorded: tuple[torch.Tensor, torch.Tensor] | None = None

    def exchange(self, k: torch.Tensor, v: torch.Tensor, table: RopeTable) -> tuple[torch.Tensor, torch.Tensor]:
        k = rotate(k, table)
        if self.recorded is None:
            self.recorded = (k.detach(), v.detach())
            return k, v
        past_k, past_v = self.recorded
        return torch.cat((past_k, k), 2), torch.cat((past_v, v), 2)

    def select(self, rows: torch.Tensor) -> _LayerContext:
        assert self.recorded is not None, "a first pass fills it"
        selected = _LayerContext()
        selected.recorded = self.recorded[0][rows], self.recorded[1][rows]
        return selected


class FrozenContext:
    """The clean clip as one policy sees it, shared by all policies that denoise it (Astrolabe's C_n).

    Args:
        network: the policy whose keys and values are recorded.
        clean_BFCHW: clean latents.
        block, window, sink: of the student, in latent frames.
    """

    def __init__(
        self,
        network: CausalWan,
        text: TextStates,
        clean_BFCHW: torch.Tensor,
        block: int,
        window: int | None = None,
        sink: int = 0,
    ) -> None:
        frames = clean_BFCHW.shape[1]
        length = frames * network.tokens_per_frame(*clean_BFCHW.shape[-2:])
        mask = teacher_forcing_mask(frames, length // frames, block, window, sink).to(clean_BFCHW.device)
        self.reading = mask[length:]
        self.cache = ContextCache(network.config.num_layers)
        with torch.no_grad():
            timestep = torch.zeros(clean_BFCHW.shape[:2], device=clean_BFCHW.device)
            network(clean_BFCHW, timestep, text, mask=mask[:length, :length], cache=self.cache, context_only=True)

    def select(self, rows: torch.Tensor) -> FrozenContext:
        """Of the samples at these rows."""
        selected = copy(self)
        selected.cache = self.cache.select(rows)
        return selected

    def velocity(
        self, network: CausalWan, x_t: torch.Tensor, timestep_BF: torch.Tensor, text: TextStates
    ) -> torch.Tensor:
        """Velocity (B, F, C, H, W) of every block given the frozen clean blocks before it."""
        v = network(x_t, timestep_BF, text, mask=self.reading, cache=self.cache)
        assert v is not None
        return v


class NoisedContext:
    """How Astrolabe's released code denoises a clip: without a cache. Every frame sees the noised frames before it,
    within a window and without a sink.

    Source: Astrolabe's released code (it sets the block size on the adapter's wrapper, so the base keeps blocks of one
    frame).
    """

    def __init__(self, network: CausalWan, clip_BFCHW: torch.Tensor, window: int | None) -> None:
        tokens = network.tokens_per_frame(*clip_BFCHW.shape[-2:])
        self.mask = block_causal_mask(clip_BFCHW.shape[1], tokens, 1, window).to(clip_BFCHW.device)

    def select(self, rows: torch.Tensor) -> NoisedContext:
        """Of the samples at these rows: the same for all."""
        return self

    def velocity(
        self, network: CausalWan, x_t: torch.Tensor, timestep_BF: torch.Tensor, text: TextStates
    ) -> torch.Tensor:
        """Velocity (B, F, C, H, W) of all frames at once."""
        v = network(x_t, timestep_BF, text, mask=self.mask)
        assert v is not None
        return v

"""Chunk-wise streaming generation with a rolling cache: blocks of frames, each from its own noise, on the student's own history.

Noise belongs to (sample, frame, step), so a video depends neither on the batch it is in nor on how frames are grouped in calls.
Source: Self-Forcing (arXiv 2506.08009), Algorithm 1; reference, section 1.6.
Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

Deviations: the context pass sees x0 as is at t = 0, in training as in inference (the released trainer adds 0.5 % noise).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from astro_cli.cache.kv import CacheSpec, KVCache
from astro_cli.core.rng import sample_noise
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.sampling.few_step import few_step


@dataclass(frozen=True)
class StreamSpec:
    """How a student streams: warped steps, frames per block, latent shape (C, H, W), cache."""

    steps: torch.Tensor
    block: int
    latent_shape: tuple[int, int, int]
    cache: CacheSpec


def new_cache(network: CausalWan, batch: int, spec: StreamSpec, max_frames: int | None) -> KVCache:
    config, (_, height, width) = network.config, spec.latent_shape
    return KVCache(
        layers=config.num_layers, batch=batch, heads=config.num_heads, head_dim=config.head_dim,
        grid=(height // config.patch[0], width // config.patch[1]), spec=spec.cache, max_frames=max_frames,
        device=network.device, dtype=network.dtype,
    )  # fmt: skip


def frame_noise(spec: StreamSpec, seeds: list[int], frames: range, use: str, device: torch.device) -> torch.Tensor:
    """(B, F, C, H, W) noise of the given frames."""
    return torch.stack([sample_noise(spec.latent_shape, seeds, use, frame, device=device) for frame in frames], dim=1)


def stream(
    network: CausalWan, text: TextStates, seeds: list[int], spec: StreamSpec, frames: int, *,
    exit_step: int | None = None, gradient: bool = False, cache: KVCache | None = None,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """Generate block after block.

    Args:
        network: the student, acting as the policy wanted.
        text: its text states for the batch.
        seeds: one per sample.
        frames: latent frames to generate, a multiple of the block.
        exit_step: stop every block after this step (Self-Forcing's random exit); default the last.
        gradient: let gradients through the exit step of every block; earlier steps and the cache carry none.

    Yields:
        x0 of each block (B, block, C, H, W).
    """
    assert frames % spec.block == 0, "frames are a multiple of the block"
    cache = cache if cache is not None else new_cache(network, len(seeds), spec, frames)
    for start in range(0, frames, spec.block):
        block = range(start, start + spec.block)

        def predict(x: torch.Tensor, timestep: torch.Tensor, last: bool, start: int = start) -> torch.Tensor:
            with torch.set_grad_enabled(gradient and last):
                plan = cache.begin(start, spec.block, write=not (gradient and last))
                return network(x, timestep, text, positions=plan.positions, cache=plan)

        def renoise(index: int, block: range = block) -> torch.Tensor:
            return frame_noise(spec, seeds, block, f"renoise-{index}", network.device)

        x0 = few_step(predict, frame_noise(spec, seeds, block, "x_T", network.device), spec.steps, renoise, exit_step)
        if start + spec.block < frames:
            write_context(network, text, x0.detach(), cache, start)
        yield x0


@torch.no_grad()
def write_context(network: CausalWan, text: TextStates, x0_BFCHW: torch.Tensor, cache: KVCache, start: int) -> None:
    """Overwrite a block's cache entries with those of its finished latents (t = 0)."""
    plan = cache.begin(start, x0_BFCHW.shape[1], write=True)
    timestep = torch.zeros(x0_BFCHW.shape[:2], device=x0_BFCHW.device)
    network(x0_BFCHW, timestep, text, positions=plan.positions, cache=plan, context_only=True)


@torch.no_grad()
def generate(network: CausalWan, text_BMD: torch.Tensor, seeds: list[int], spec: StreamSpec, frames: int) -> torch.Tensor:
    """A whole batch of videos at once, (B, F, C, H, W), without gradients."""
    text = network.encode_text(text_BMD.to(network.device))
    return torch.cat(list(stream(network, text, seeds, spec, frames)), dim=1)

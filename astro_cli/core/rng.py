"""Random streams: every random draw comes from a generator named for its use. The global seed stays untouched.

A stream is a pure function of its name parts, so a resumed run, another batch size or another rank draws the same
numbers without any generator state in the checkpoint.
"""

from __future__ import annotations

import hashlib
import itertools
import math

import torch

from astro_cli.core.philox import normal


def stream_seed(*parts: object) -> int:
    """63-bit seed of the stream named by `parts`, stable over Python versions and platforms."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(*parts: object) -> torch.Generator:
    """CPU generator of the stream named by `parts`, e.g. `stream(seed, "renoise", step)`."""
    return torch.Generator(device="cpu").manual_seed(stream_seed(*parts))


def sample_noise(
    shape: tuple[int, ...], seeds: list[int], *use: object, device: torch.device | None = None
) -> torch.Tensor:
    """Standard normal noise, one independent stream per sample.

    Args:
        shape: shape of one sample, without the batch dimension.
        seeds: one seed per sample (B of them).
        use: what the noise is for; part of the stream's name (e.g. "noise", frame index, step).

    Returns:
        float32 (B, *shape). Drawn on CPU, so that a sample's noise depends neither on the batch it is in nor on the
        device. The copy to a GPU does not let the host wait.
    """
    pinned = device is not None and device.type == "cuda"
    noise = torch.empty((len(seeds), *shape), pin_memory=pinned)
    for row, seed in zip(noise, seeds, strict=True):
        row.normal_(generator=stream(seed, *use))
    return noise if device is None else noise.to(device, non_blocking=pinned)


def device_noise(
    shape: tuple[int, ...], seeds: list[int], uses: list[tuple[object, ...]], device: torch.device
) -> torch.Tensor:
    """Standard normal noise made on the device: float32 (B, uses, *shape), one independent stream per sample and use.

    The streams have the names of `sample_noise`, their numbers are others (`core.philox`).
    """
    streams = [stream_seed(seed, *use) for seed, use in itertools.product(seeds, uses)]
    return normal(streams, math.prod(shape), device).view(len(seeds), len(uses), *shape)

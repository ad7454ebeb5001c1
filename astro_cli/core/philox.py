"""Standard normal noise made on the device that needs it, by a counter-based generator of tensor operations.

Entry i of a stream is a function of (stream, i) alone, so noise depends neither on the batch nor on the device, up to
rounding in the logarithm and the angle. The host neither draws nor copies anything.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), Philox4x32 with 10 rounds; Box and
Muller (1958).

**Deviations**: none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
STEPS = (0x9E3779B9, 0xBB67AE85)  # what a round adds to the key
WORD = 0xFFFFFFFF


def philox(counter: tuple[torch.Tensor, ...], key: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Four words of 32 random bits for each counter.

    Args:
        counter: four int64 tensors with values below 2^32.
        key: two of them.
    """
    a, b, c, d = counter
    first, second = key
    for _ in range(ROUNDS):
        # A product of two 32-bit words may pass 2^63 and wrap; its upper word is right all the same.
        low, high = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (
            (high >> 32) & WORD ^ b ^ first,
            high & WORD,
            (low >> 32) & WORD ^ d ^ second,
            low & WORD,
        )
        first, second = (first + STEPS[0]) & WORD, (second + STEPS[1]) & WORD
    return a, b, c, d


def _column(numbers: list[int], device: torch.device) -> torch.Tensor:
    """(numbers, 1) int64, one at a time, as a kernel's argument: a list would be copied to the device, and the host
    would wait.
    """
    return torch.cat([torch.full((1, 1), number, dtype=torch.int64, device=device) for number in numbers])


def normal(streams: Sequence[int], count: int, device: torch.device) -> torch.Tensor:
    """(streams, count) standard normal float32 numbers; a stream is a number below 2^63, as of `rng.stream_seed`."""
    key = _column([seed & WORD for seed in streams], device), _column([seed >> 32 for seed in streams], device)
    index = torch.arange(-(-count // 4), dtype=torch.int64, device=device)[None]
    zero = torch.zeros_like(index)
    bits = philox((index & WORD, index >> 32, zero, zero), key)
    # (bits + 1/2) / 2^32 in (0, 1), in float64, so that the logarithm is finite and the tail complete.
    uniform = [(word.double() + 0.5) * 2.0**-32 for word in bits]
    pairs = []
    for radius, angle in ((uniform[0], uniform[1]), (uniform[2], uniform[3])):
        length = (-2.0 * radius.log()).sqrt()
        pairs += [length * (2.0 * math.pi * angle).cos(), length * (2.0 * math.pi * angle).sin()]
    return torch.stack(pairs, -1).flatten(1)[:, :count].float()

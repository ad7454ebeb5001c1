"""An EMA sink that carries gradients: what a blended sink holds as functions of the evicted frames' keys and values.

    S_i = alpha S_(i-1) + (1 - alpha) K_evicted

Gradients pass through K_evicted and S_(i-1); the first frames, S_0, have none. The numbers are those of the cache's own
sink. With alpha = 1 all gradients are zero: a fixed sink.
Source: Reward Forcing (arXiv 2512.04678), section 3.4 ("the differentiable EMA enables gradient propagation through
compression").
Dimensions: B sample, H head, P token of a frame, D head width.

**Deviations**: the paper does not say how far the gradient goes. Here it reaches the weights that made the evicted
keys and values in their context pass, and through the sink that this pass saw those before it; the latents, and the
frames in the window, are history without gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from astro_cli.cache.sinks.base import SinkPolicy

KeysValues = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def recorded_once() -> Iterator[None]:
    """With gradients, and outside of the gradient checkpointing of the pass that asks: it runs again, this does not."""
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_same, _same):
        yield


def _same(value: torch.Tensor) -> torch.Tensor:
    return value


class LiveSink:
    """One layer's sink and the frames that may still be blended into it, un-rotated."""

    def __init__(self) -> None:
        self.frames: dict[int, KeysValues] = {}  # clean frames by number, with gradients
        self.blended: dict[int, KeysValues] = {}  # by sink frame: those that took in an evicted one

    def keep(self, first: int, k: torch.Tensor, v: torch.Tensor, tokens: int) -> None:
        """Take the keys and values (B, H, f P, D) of frames from `first` on."""
        pairs = zip(k.split(tokens, 2), v.split(tokens, 2), strict=True)
        self.frames |= {first + place: pair for place, pair in enumerate(pairs)}

    def blend(self, place: int, start: KeysValues, frame: int, policy: SinkPolicy) -> KeysValues:
        """Give an evicted frame to a sink frame, which holds `start` as long as it took in none."""
        k, v = self.blended.get(place, start)
        gone_k, gone_v = self.frames.pop(frame)
        self.blended[place] = policy.update(k, gone_k), policy.update(v, gone_v)
        return self.blended[place]

    def keys_values(self, k: torch.Tensor, v: torch.Tensor, tokens: int) -> KeysValues:
        """The sink's keys and values (B, H, n P, D), un-rotated, in place of the cache's own `k` and `v`."""
        parts = enumerate(zip(k.split(tokens, 2), v.split(tokens, 2), strict=True))
        pairs = [self.blended.get(place, pair) for place, pair in parts]
        return torch.cat([pair[0] for pair in pairs], 2), torch.cat([pair[1] for pair in pairs], 2)

"""A running stream as a flat dict of tensors, and back: its part of a checkpoint.

Noise needs no entry: it belongs to (seed, frame, step).

| name | what |
|---|---|
| spec, steps | block, cache and kernel as numbers, and the timesteps; compared when the stream is loaded |
| at | frames finished, frames written, length (-1: none), recent blocks, joined passes (0, 1), folded text (0, 1) |
| seeds | one per sample |
| recent.i | the newest finished blocks, oldest first |
| text.l.i | text states of layer l; text.source: the encoder's states they were made of |
| cache.* | as `KVCache.state` |

Dimensions: B sample, F latent frame, M text token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch

from astro_cli.config.errors import StreamError
from astro_cli.models.wan.transformer import TextStates
from astro_cli.rollout.spec import StreamSpec
from astro_cli.sampling.kernel import Kind

HINT = "a stream goes on with the recipe it began with"


@dataclass(frozen=True)
class StreamState:
    """A stream between two blocks."""

    frame: int
    written: int
    max_frames: int | None
    join: bool
    seeds: list[int]
    recent: list[torch.Tensor]
    text: TextStates
    cache: dict[str, torch.Tensor]

    def tensors(self, spec: StreamSpec) -> dict[str, torch.Tensor]:
        """Copies on the CPU, so that the stream may go on."""
        length = -1 if self.max_frames is None else self.max_frames
        at = [self.frame, self.written, length, len(self.recent), int(self.join), int(self.text.folded)]
        named = {
            "spec": torch.tensor(list(_facts(spec).values()), dtype=torch.float64),
            "steps": spec.steps,
            "at": torch.tensor(at),
            "seeds": torch.tensor(self.seeds),
            "text.source": self.text.source_BMD,
        }
        named |= {f"recent.{index}": block for index, block in enumerate(self.recent)}
        for layer, parts in enumerate(self.text.layers):
            named |= {f"text.{layer}.{index}": part for index, part in enumerate(parts)}
        named |= {f"cache.{name}": tensor for name, tensor in self.cache.items()}
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in named.items()}

    @staticmethod
    def read(state: Mapping[str, torch.Tensor], spec: StreamSpec, device: torch.device) -> StreamState:
        """The state in those tensors, on `device`; its cache where the tensors are.

        Raises:
            StreamError: a tensor is missing, or the stream had another spec.
        """
        _check_spec(state, spec)
        frame, written, length, blocks, join, folded = _get(state, "at").tolist()
        layers = []
        while f"text.{len(layers)}.0" in state:
            parts = (f"text.{len(layers)}.{index}" for index in range(3))
            layers.append(tuple(state[name].to(device) for name in parts if name in state))
        text = TextStates(layers, _get(state, "text.source").to(device), bool(folded))
        recent = [_get(state, f"recent.{index}").to(device) for index in range(blocks)]
        cache = {name.removeprefix("cache."): tensor for name, tensor in state.items() if name.startswith("cache.")}
        seeds = _get(state, "seeds").tolist()
        return StreamState(frame, written, None if length < 0 else length, bool(join), seeds, recent, text, cache)


def _facts(spec: StreamSpec) -> dict[str, float]:
    """What must not change while a stream runs, as numbers."""
    cache, kernel = spec.cache, spec.kernel
    return {
        "video.block": spec.block,
        "first_frame_alone": spec.first_frame_alone,
        "cache.window": -1 if cache.window is None else cache.window,
        "cache.sink": cache.sink,
        "cache.relative": cache.relative,
        "cache.policy": cache.policy == "ema",
        "cache.alpha": cache.alpha,
        "sampler.kind": get_args(Kind).index(kernel.kind),
        "sampler.noise": kernel.level,
        "noise": spec.noise == "device",
    }


def _check_spec(state: Mapping[str, torch.Tensor], spec: StreamSpec) -> None:
    expected, saved = _facts(spec), _get(state, "spec").tolist()
    if len(saved) != len(expected):
        what = f"found {len(saved)} values in the saved stream, expected {len(expected)}"
        raise StreamError("stream", "spec", what, hint=HINT)
    for (key, value), old in zip(expected.items(), saved, strict=True):
        if old != value:
            raise StreamError("stream", key, f"found {old:g} in the saved stream, expected {value:g}", hint=HINT)
    if not torch.equal(_get(state, "steps").double(), spec.steps.cpu().double()):
        old, steps = _get(state, "steps").tolist(), spec.steps.tolist()
        raise StreamError("stream", "sampler.steps", f"found {old} in the saved stream, expected {steps}", hint=HINT)


def _get(state: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in state:
        raise StreamError("stream", name, "missing in the saved stream", hint="is the checkpoint whole?")
    return state[name]

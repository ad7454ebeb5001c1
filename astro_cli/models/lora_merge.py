"""Folds LoRA adapters into weights: one or several, each with a strength; the result has no adapter and no cost of one.

W' = W + sum over adapters of strength (alpha / rank) B A (Hu et al., LoRA, arXiv 2106.09685, section 4.1), computed in
float32 and cast to W's dtype. The order in which adapters are named does not matter, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import expanded
from astro_cli.models import lora_keys, weights
from astro_cli.models.lora_files import Lora, content_hash, read_lora
from astro_cli.models.tensor_files import LazyState, some
from astro_cli.zoo.entries import BY_NAME

EXAMPLE = "for example --lora style.safetensors:0.8 --lora motion.safetensors"


def split_strength(text: str) -> tuple[str, float]:
    """`SOURCE` or `SOURCE:STRENGTH` as source and strength, default 1. A path that exists is a source as a whole,
    whatever colons it has, and so is one with a slash behind
    its last colon, as behind a drive's letter.

    Raises:
        CheckpointError: a strength that is no finite number, or no adapter before it.
    """
    source, colon, strength = text.rpartition(":")
    if not colon or text in BY_NAME or expanded(text).exists():
        return text, 1.0
    try:
        value = float(strength)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and source:
        return source, value
    if "/" in strength or "\\" in strength:  # the colon is a part of the path
        return text, 1.0
    if not source:
        raise CheckpointError(text, "--lora", "found no adapter before the colon", hint=EXAMPLE)
    what = f"found the strength {strength!r}, expected a finite number behind the colon"
    raise CheckpointError(text, "--lora", what, hint=EXAMPLE)


def check_strengths(texts: Sequence[str]) -> None:
    """Refuse a wrong strength before anything is looked for.

    Raises:
        CheckpointError: as `split_strength`.
    """
    for text in texts:
        split_strength(text)


def read_loras(texts: Sequence[str]) -> list[Lora]:
    """Adapters named as `SOURCE` or `SOURCE:STRENGTH`, in an order that does not depend on that of `texts`.

    Raises:
        CheckpointError: one that cannot be read, or one adapter twice.
    """
    named = [split_strength(text) for text in texts]  # all, before one is read
    loras = [replace(read_lora(source), strength=strength) for source, strength in named]
    if len(loras) < 2:
        return loras
    by_content: dict[str, Lora] = {}
    for lora in loras:
        content = content_hash(lora)
        if content in by_content:
            what = f"the same adapter as {by_content[content].source}"
            raise CheckpointError(lora.source, "--lora", what, hint="name it once, with the sum of the strengths")
        by_content[content] = lora
    return [lora for _, lora in sorted(by_content.items())]


class MergedState(Mapping[str, torch.Tensor]):
    """A state dict with adapters folded in: a layer is read, changed and given out when it is asked for."""

    def __init__(self, state: Mapping[str, torch.Tensor], loras: Sequence[Lora]) -> None:
        self.state, self.loras = state, loras

    def __getitem__(self, key: str) -> torch.Tensor:
        value = self.state[key]
        changes = [
            (lora.source, change) for lora in self.loras if (change := lora.change(key, value.device)) is not None
        ]
        if not changes:
            return value
        sources, added = zip(*changes, strict=True)
        return weights.checked(value.float() + sum(added[1:], added[0]), sources[-1], key, value.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


def merge_loras(state: Mapping[str, torch.Tensor], loras: Sequence[Lora]) -> Mapping[str, torch.Tensor]:
    """Weights with adapters folded in, each at its own strength. With strength 0 an adapter changes no bit.

    Args:
        state: weights by diffusers' names; each is read when its layer is taken, and stays unchanged.

    Returns:
        A mapping that computes a layer when it is asked for.

    Raises:
        CheckpointError: a pair that fits no layer of `state`, with what was found and what was expected.
    """
    for lora in loras:
        _check_fits(state, lora)
    return MergedState(state, [lora for lora in loras if lora.strength])


def _check_fits(state: Mapping[str, torch.Tensor], lora: Lora) -> None:
    shapes = state.tensors if isinstance(state, LazyState) else state
    layers = [key.removesuffix(".weight") for key in shapes if key.endswith(".weight") and len(shapes[key].shape) >= 2]
    strange = [*sorted(lora.pairs.keys() - set(layers)), *sorted(lora.differences.keys() - shapes.keys())]
    if strange:
        total = len(lora.pairs) + len(lora.differences)
        noun = "pairs" if not lora.differences else "changes"
        what = (
            f"{len(strange)} of {total} {noun} match no layer ({total - len(strange)} do): found {some(strange)}; "
            f"expected {some([layer for layer in layers if len(shapes[f'{layer}.weight'].shape) == 2])}"
        )
        hint = "is it a LoRA of this model and number of layers?"
        if any(lora_keys.OF_IMAGES in name for name in strange):
            hint = "it is a LoRA of an image-to-video model: use one of text-to-video"
        raise CheckpointError(lora.source, "", what, hint=hint)
    changes = {f"{layer}.weight": pair.shape for layer, pair in lora.pairs.items()}
    for side, word in ((changes, "B A"), ({key: part.shape for key, part in lora.differences.items()}, "it")):
        for key, shape in side.items():
            if shape != (wanted := tuple(shapes[key].shape)):
                what = f"{word} is {shape}, expected {wanted}"
                layer = key.removesuffix(".weight")
                raise CheckpointError(lora.source, layer, what, hint="is it a LoRA of this model's size?")

"""Which part of a released file is the model: moving average, trained weights, or the file itself.

Source: the loaders of Self-Forcing, Causal-Forcing, LongLive, Reward Forcing and MemFlow, as released.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.models.tensor_files import LazyTensor, of_tensor

EMA, FLAT = "generator_ema", "flat"
EMA_FIRST = (EMA, "generator", "model", "state_dict")
PLAIN_FIRST = ("generator", EMA, "model", "state_dict")
PLAIN_ONLY = ("generator", "model", "state_dict")
LORA_FIRST = ("generator_lora", "lora", "model", "state_dict")
SHOWN = 8  # keys an error lists


def order(ema: bool | None, *, plain_first: bool = False) -> tuple[str, ...]:
    """Nestings in the order they are tried: as requested, else as the release itself loads its weights."""
    if ema is not None:
        return (EMA,) if ema else PLAIN_ONLY
    return PLAIN_FIRST if plain_first else EMA_FIRST


def unwrap(
    content: Mapping[str, Any], names: tuple[str, ...], where: Path, hint: str = ""
) -> tuple[dict[str, LazyTensor], str]:
    """The tensors of the first nesting that is there, else of a flat file (unless only the moving average is asked
    for), and its name.

    Numbers and other tables beside the tensors (critic, step) are left out.

    Raises:
        CheckpointError: none of them, with the keys that are there.
    """
    for name in names:
        if isinstance(content.get(name), Mapping) and (tensors := _tensors(content[name])):
            return tensors, name
    flat = _tensors(content)
    if flat and names != (EMA,):
        return flat, FLAT
    keys = ", ".join([*content][:SHOWN]) if not flat else "tensors without nesting"
    inner = next((value for value in content.values() if isinstance(value, Mapping)), {})
    below = f" (holding {', '.join(str(key) for key in [*inner][:SHOWN])})" if inner and not flat else ""
    expected = ", ".join(names) + ("" if names == (EMA,) else " or a flat state dict")
    what = f"unknown nesting: found {keys or 'nothing'}{below}, expected {expected}"
    raise CheckpointError(where, "", what, hint=hint)


def others(content: Mapping[str, Any], taken: str) -> list[str]:
    """Further parts of a file that may be the model: those of the known names, and other moving averages."""
    return [
        name
        for name, value in content.items()
        if name != taken and (name in EMA_FIRST or "ema" in name.lower().split("_"))
        if isinstance(value, Mapping) and _tensors(value)
    ]


def _tensors(content: Mapping[Any, Any]) -> dict[str, LazyTensor]:
    lazy = {str(key): of_tensor(value) if isinstance(value, torch.Tensor) else value for key, value in content.items()}
    return {key: value for key, value in lazy.items() if isinstance(value, LazyTensor)}

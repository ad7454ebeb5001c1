"""LoRA adapters over one frozen base, through peft: several named adapters, switched without copying.

Files are read and written in `lora_files`.
Astrolabe keeps three: `default` (trained), `old` (the behaviour policy), `ref` (the KL reference). All start equal to
the base.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from astro_cli.models.lora_layer import MergingLinear

# Every Linear inside the attention blocks: q, k, v, o of self- and cross-attention and both of the feed-forward, ten
# per block.
TARGETS = r"blocks\.\d+\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ffn\.net\.(0\.proj|2))"
TRAINED = "default"


def add_adapters(
    network: nn.Module, rank: int, alpha: float, dropout: float, names: tuple[str, ...], generator: torch.Generator
) -> None:
    """Inject LoRA adapters in place; the base is frozen and the first adapter is the trained and active one.

    All adapters get the same start: A uniform as peft draws it (Kaiming, bound 1 / sqrt(fan-in)) but from `generator`,
    B zero. Adapters are float32 whatever the base's dtype.
    """
    with warnings.catch_warnings():
        # Several adapters are intended.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        for name in names:
            inject_adapter_in_model(_config(rank, alpha, dropout), network, name)
    for layer in layers(network):
        a, _ = _matrices(layer, names[0])
        start = (torch.rand(tuple(a.shape), generator=generator) * 2 - 1) * a.shape[1] ** -0.5
        for name in names:
            a, b = _matrices(layer, name)
            a.data, b.data = start.clone().to(a.device), torch.zeros_like(b, dtype=torch.float32)
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(f".{TRAINED}." in key)
    activate(network, names[0])


def _config(rank: int, alpha: float, dropout: float) -> LoraConfig:
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=TARGETS)  # type: ignore[arg-type]
    config._register_custom_module({nn.Linear: MergingLinear})
    return config


def _matrices(layer: MergingLinear, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, in) and B (out, rank) of one adapter."""
    return cast(torch.Tensor, layer.lora_A[name].weight), cast(torch.Tensor, layer.lora_B[name].weight)


def layers(network: nn.Module) -> list[MergingLinear]:
    return [module for module in network.modules() if isinstance(module, MergingLinear)]


def activate(network: nn.Module, name: str | None) -> None:
    """Make one adapter act (None: the bare base). Only the trained adapter ever requires gradients."""
    for layer in layers(network):
        layer.act(name)


@contextmanager
def using(network: nn.Module, name: str | None) -> Iterator[None]:
    """Act as another adapter for a while, merged into the weights where no gradients are wanted; what acted before acts
    again afterwards.
    """
    first = layers(network)[0]
    before = None if first.disable_adapters else first.active_adapters[0]
    activate(network, name)
    try:
        with merged(network, name):
            yield
    finally:
        activate(network, before)


@contextmanager
def merged(network: nn.Module, name: str | None) -> Iterator[None]:
    """Let every layer keep W + scale B A of an adapter for passes without gradients: one matrix product a layer instead
    of three. Nothing is kept where gradients are enabled, nor where a layer `MergingLinear.merges` not.

    The sums are made anew at every entry, so that they follow the adapter and no rounding adds up.
    """
    merging = layers(network)
    before = [layer.kept for layer in merging]
    keeps = name is not None and not torch.is_grad_enabled() and all(layer.merges() for layer in merging)
    for layer in merging:
        layer.kept = layer.merged_weight(name) if keeps and name is not None else None
    try:
        yield
    finally:
        for layer, kept in zip(merging, before, strict=True):
            layer.kept = kept


def adapter_state(network: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Parameters of one adapter, by name without the adapter's."""
    return {
        key.replace(f".{name}.", "."): value
        for key, value in network.named_parameters()
        if re.search(rf"\.lora_[AB]\.{name}\.", key)
    }


@torch.no_grad()
def blend(network: nn.Module, target: str, source: str, keep: float) -> None:
    """target <- keep target + (1 - keep) source, parameter by parameter (Astrolabe Alg. 1, line 38)."""
    new = adapter_state(network, source)
    for key, value in adapter_state(network, target).items():
        value.lerp_(new[key], 1.0 - keep)


@torch.no_grad()
def merged_state(network: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """The network's weights with one adapter folded in, W + scale B A, under the base's parameter names.

    float32 whatever the base's dtype: what training changes is often less than a step of bfloat16.
    """
    deltas = {
        f"{key}.weight": layer.get_delta_weight(name)
        for key, layer in network.named_modules()
        if isinstance(layer, LoraLinear)
    }
    state = {}
    for key, value in network.state_dict().items():
        if ".lora_" in key:
            continue
        plain = key.replace(".base_layer.", ".")
        state[plain] = value.float() + deltas[plain] if plain in deltas else value.to(torch.float32, copy=True)
    return state

"""Names of a Wan transformer's parameters: markers and prefixes off, original Wan 2.1 names -> diffusers' (which are
ours).

Source: the parameter names of Wan 2.1's released code and of diffusers' `WanTransformer3DModel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

# What FSDP, activation checkpointing and torch.compile put into names when they wrap a module.
MARKERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
PREFIXES = ("model.", "diffusion_model.", "module.")
_BLOCK = {"self_attn": "attn1", "cross_attn": "attn2", "norm3": "norm2", "modulation": "scale_shift_table"}
_LEAF = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_OUTSIDE = (
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
)


def plain(key: str, prefixes: Iterable[str] = PREFIXES) -> str:
    """A name without wrappers' markers, wherever they stand, and without leading prefixes."""
    for marker in MARKERS:
        key = key.replace(marker, "")
    while prefix := next((prefix for prefix in prefixes if key.startswith(prefix)), None):
        key = key.removeprefix(prefix)
    return key


def to_diffusers(key: str) -> str:
    """Name in diffusers' layout of a parameter named as in the original Wan 2.1 code; other names stay."""
    match = re.match(r"^blocks\.(\d+)\.(self_attn|cross_attn|norm3|modulation)(.*)$", key)
    if match:
        index, part, rest = match.groups()
        leaf = re.match(r"^\.([qkvo])\.(.*)$", rest)
        rest = f".{_LEAF[leaf[1]]}.{leaf[2]}" if leaf else rest
        return f"blocks.{index}.{_BLOCK[part]}{rest}"
    for pattern, name in _OUTSIDE:
        key = re.sub(pattern, name, key)
    return key


def original_to_diffusers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {to_diffusers(key): value for key, value in state.items()}

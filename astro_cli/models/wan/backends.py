"""Which kernel computes attention, by name. Owns the choice, its check against plain mathematics, and the refusal of
one that is not here.

A chosen kernel comes first; what it cannot take goes to the next of `OTHERS`: cross-attention over folded padding adds
a bias to its scores, which FlashAttention has no place for, and one head of the VAE is wider than it allows.
Source: FlashAttention-3 (arXiv 2407.08608) through torch's own activation of other implementations.
Dimensions: B sample, H head, L query token, M key token, D head width.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch.nn import attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from astro_cli.config.errors import StreamError

Name = Literal["auto", "math", "flash", "fa3", "fa4", "efficient", "cudnn"]
NAMES: tuple[Name, ...] = get_args(Name)
KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "fa3": SDPBackend.FLASH_ATTENTION,
    "fa4": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
OTHERS = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
# Implementations that torch puts behind its FlashAttention, and the module each is in.
ACTIVATED = {"fa3": ("FA3", "flash_attn_interface"), "fa4": ("FA4", "flash_attn.cute")}
QUERIES, KEYS = 128, 320  # of the check
# Largest difference from float32 mathematics over 320 keys with standard normal entries: means of values of order 0.1,
# which bfloat16 rounds by up to 2^-9 of the largest, in scores and in the output.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


@contextmanager
def using(name: Name) -> Iterator[None]:
    """Attention by that kernel first; "auto" leaves the choice to torch.

    Raises:
        StreamError: the package of another implementation is not installed.
    """
    if name == "auto":
        yield
        return
    order = [KERNELS[name], *(kernel for kernel in OTHERS if kernel != KERNELS[name])]
    with _activated(name), sdpa_kernel(order, set_priority=True):
        yield


@contextmanager
def _activated(name: Name) -> Iterator[None]:
    """The kernel's package in use, where it has one; as before afterwards."""
    if name not in ACTIVATED:
        yield
        return
    _activate(name)
    try:
        yield
    finally:
        attention.restore_flash_attention_impl()


def _activate(name: Name) -> None:
    implementation, module = ACTIVATED[name]
    try:
        attention.activate_flash_attention_impl(implementation)
    except Exception as error:  # of torch or of the package: it is missing, or it is not for this machine
        what = f"cannot be activated: {str(error).partition(chr(10))[0] or type(error).__name__}"
        hint = f"install the package that has {module}, or use --attention flash, which torch brings along"
        raise StreamError("--attention", name, what, hint=hint) from error


def check(name: Name, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> float:
    """Let the kernel compute alone and compare it with float32 mathematics.

    Returns:
        the largest difference; 0 of "auto", which is not checked.

    Raises:
        StreamError: the kernel is not there for this device, width or dtype, or its numbers are wrong.
    """
    if name == "auto":
        return 0.0
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, tokens, head_dim, generator=rng) for tokens in (QUERIES, KEYS, KEYS))
    q, k, v = (part.to(device, dtype) for part in (q, k, v))
    with _activated(name):
        result = alone(name, q, k, v)
    with sdpa_kernel([SDPBackend.MATH]):
        expected = scaled_dot_product_attention(q.float(), k.float(), v.float())
    error = (result.float() - expected).abs().max().item()
    if not error <= TOLERANCES[dtype]:
        what = f"its largest difference from plain attention is {error:.1e}, expected at most {TOLERANCES[dtype]:.0e}"
        raise StreamError("--attention", name, what, hint="use --attention auto, and report the device")
    return error


def alone(name: Name, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention by that kernel and no other.

    Raises:
        StreamError: it does not take these tensors, with torch's reasons where it gives any.
    """
    try:
        with warnings.catch_warnings(record=True) as reasons, sdpa_kernel([KERNELS[name]]):
            warnings.simplefilter("always")
            return scaled_dot_product_attention(q, k, v)
    except RuntimeError as error:
        lines = [str(reason.message).partition("(Triggered")[0].strip() for reason in reasons]
        reason = lines[-1] if lines else str(error).partition(".")[0]
        device = torch.cuda.get_device_name(q.device) if q.device.type == "cuda" else q.device.type
        what = f"not available for {_short(q.dtype)} and heads of {q.shape[-1]} on {device}: {reason}"
        hint = "use --attention auto, which takes the fastest kernel that is there"
        if q.device.type == "cuda" and q.dtype == torch.float32:
            hint = "FlashAttention and cuDNN compute in 16 bits: add --dtype bf16"
        raise StreamError("--attention", name, what, hint=hint) from error


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

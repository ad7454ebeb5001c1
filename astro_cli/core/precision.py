"""Which library multiplies float32 matrices on a CPU while videos stream: oneDNN instead of MKL, where it is faster and
rounds nothing.

`torch.backends.mkldnn.matmul.fp32_precision = "bf16"` allows oneDNN to multiply in bfloat16. A CPU without units for
that multiplies in float32, on an AMD CPU about twice as fast as MKL. A CPU with them (AMX) really rounds. One product
with a known result, made once per process, tells the two apart.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

ALLOWED = 1e-6  # of the largest result; float32 products of this width are off by 4e-7
ROWS, WIDTH = 64, 256  # of the product
ONEDNN: Any = torch.backends.mkldnn  # its products are no part of torch's type hints
# MKL was made for these. With the units for bfloat16 masked, oneDNN's linear layers took 1.0 to 1.15 times as long as
# MKL's there, and attention 1.1 to 1.9 times.
MKL_IS_FAST = "GenuineIntel"


class Probed(NamedTuple):
    """Whether products may go to oneDNN, the relative error that decided, and the reason in words."""

    switch: bool
    error: float
    why: str


def cpu_name() -> str:
    """Vendor and model where the system says them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    fields: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        fields[key.strip()] = value.strip()
    named = [fields[key] for key in ("vendor_id", "model name") if fields.get(key)]
    return " ".join(named) or platform.processor() or platform.machine()


@torch.no_grad()
def error(setting: str) -> float:
    """Largest error of a float32 product under a setting of `fp32_precision`, over the largest entry of the result."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(ROWS, WIDTH, generator=generator), torch.randn(WIDTH, WIDTH, generator=generator)
    exact = x.double() @ weight.double().T
    with _setting(setting):
        product = torch.nn.functional.linear(x, weight)
    return ((product - exact).abs().max() / exact.abs().max()).item()


@functools.cache
def probed() -> Probed:
    """What this process found; the product is made at the first call."""
    if not ONEDNN.is_available():
        return Probed(False, 0.0, "torch has no oneDNN")
    off = error("bf16")
    if not off < ALLOWED:
        return Probed(False, off, f"oneDNN's bfloat16 products round on this CPU: error {off:.1e}")
    if cpu_name().startswith(MKL_IS_FAST):
        return Probed(False, off, "MKL is as fast on this CPU")
    return Probed(True, off, f"oneDNN multiplies in float32 on this CPU: error {off:.1e}")


@contextmanager
def streaming() -> Iterator[None]:
    """Around passes of a stream, without gradients: products by oneDNN where the probe allows it; as before afterwards.

    Not for training, whose small layers it slows down.
    """
    if not probed().switch:
        yield
        return
    with _setting("bf16"):
        yield


def install(network: nn.Module) -> None:
    """Let every pass of a network that is not trained run inside `streaming`; nothing is installed where the probe
    forbids it.
    """
    if not probed().switch:
        return
    plain = network.forward

    @functools.wraps(plain)
    def forward(x: torch.Tensor, *others: Any, **named: Any) -> Any:
        here = x.device.type == "cpu" and not torch.is_grad_enabled()
        with streaming() if here else nullcontext():
            return plain(x, *others, **named)

    network.forward = forward  # a hook would not be called after Ctrl-C


@contextmanager
def _setting(name: str) -> Iterator[None]:
    before = ONEDNN.matmul.fp32_precision
    ONEDNN.matmul.fp32_precision = name
    try:
        yield
    finally:
        ONEDNN.matmul.fp32_precision = before

"""Linear layers in FP8, for GPUs that multiply FP8 numbers. Owns the conversion and the refusal of other hardware.

    y = s_x s_w (x / s_x)(w / s_w)^T + b,   s = max |row| / 448, one per token and one per output

The large layers of the blocks are converted; embeddings, modulation and the head stay as they are. Weights take half
the bytes of bfloat16.
Source: OCP's OFP8 specification, format E4M3; "rowwise" scaling as in torch's `_scaled_mm`.

**Deviations**: none. Products are rounded to bfloat16, also in a float32 network.
"""

from __future__ import annotations

import torch
from torch import nn

from astro_cli.config.errors import StreamError
from astro_cli.models.wan.transformer import CausalWan

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
LEAST = 1e-12  # scale of a row of zeros
SIDES = 16  # FP8 products take matrices whose sides are multiples of it
ROWS = 64  # of the input on which a layer's error is measured
FIRST = (8, 9)  # compute capability of the first GPUs with FP8 products: Ada; Hopper has 9.0


def quantised(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, K) as FP8, and the scale (N, 1) of each row."""
    scale = rows.abs().amax(-1, keepdim=True).float().clamp_min(LEAST) / LARGEST
    return (rows.float() / scale).to(FLOAT8), scale


class Float8Linear(nn.Module):
    """A linear layer with FP8 weights; its input is quantised row by row, its output has the input's dtype."""

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantised(linear.weight.detach())
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, scale = quantised(x.flatten(0, -2))
        scales = {"scale_a": scale, "scale_b": self.scale.t()}
        y = torch._scaled_mm(rows, self.weight.t(), **scales, out_dtype=torch.bfloat16)  # type: ignore[reportPrivateImportUsage]
        y = y.unflatten(0, x.shape[:-1]).to(x.dtype)
        return y if self.bias is None else y + self.bias


def refuse_without(device: torch.device) -> None:
    """Refuse a device that has no FP8 products.

    Raises:
        StreamError: with the device's name and what is needed.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= FIRST:
        return
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        device_text = f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
    else:
        device_text = f"a device of type {device.type}"
    what = f"found {device_text}, which has no FP8 products; expected a GPU of compute capability 8.9 or more"
    raise StreamError("--linear", "fp8", what, hint="leave --linear out: the layers then compute in --dtype")


@torch.no_grad()
def convert(network: CausalWan) -> float:
    """Make the blocks' linear layers FP8, in place.

    Returns:
        The largest relative error of a layer: root mean square of the difference over that of the layer's output, on
        standard normal input.

    Raises:
        StreamError: a layer whose sides FP8 products do not take.
    """
    layers = [each for block in network.blocks for each in _linears(block)]
    for _, _, linear in layers:
        sides = linear.out_features, linear.in_features
        if any(side % SIDES for side in sides):
            what = f"a layer of {sides[0]} x {sides[1]}: expected multiples of {SIDES}"
            raise StreamError("--linear", "fp8", what, hint="leave --linear out for this network")
    errors = []
    for module, name, linear in layers:
        quick = Float8Linear(linear)
        errors.append(relative_error(quick, linear))
        setattr(module, name, quick)
    return torch.stack(errors).max().item()


def relative_error(quick: Float8Linear, linear: nn.Linear) -> torch.Tensor:
    """Of one layer, without its bias."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, linear.in_features, generator=rng).to(linear.weight)
    bias = 0 if linear.bias is None else linear.bias
    expected = linear(x) - bias
    return (quick(x) - bias - expected).float().pow(2).mean().sqrt() / expected.float().pow(2).mean().sqrt()


def _linears(block: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """A block's linear layers: the module each is in, its name there, and it."""
    linears = []
    for module in block.modules():
        linears += [(module, name, child) for name, child in module.named_children() if isinstance(child, nn.Linear)]
    return linears

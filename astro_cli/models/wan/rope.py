"""Rotary position embedding of Wan 2.1 over (frame, row, column). Owns the tables and the rotation.

Complex pairs are consecutive channels (2j, 2j+1); of d/2 pairs the first d/2 - 2 (d // 6) belong to time, then d // 6
each to height and width (22, 21, 21 for d = 128). Frequencies are 10000^(-2j / d_axis), each axis with its own width
d_axis.
Rows and columns count tokens. Stretched, they cover a given span at any size: row r of R stands at r span / R, so a
picture of another size lies where those of the trained size do. Time is never stretched.
Source: Wan 2.1's released code, `rope_apply`; stretched: AAPT (arXiv 2506.09350), supplement C.
Dimensions: F latent frame, P tokens per frame (rows x columns), L = F P token, D head width.

Deviations: tables are computed in float64 for exactly the positions given, so there is no 1,024-frame limit; the
rotation itself runs in float32 (the released code rotates in complex128 in every layer and pass; the largest difference
on the recordings is below 2e-6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

THETA = 10000.0
Span = tuple[int, int]  # rows and columns that the tokens of a frame cover, however many they are


@dataclass(frozen=True)
class RopeTable:
    """cos and sin (L, D/2), float32, of L token positions."""

    cos: torch.Tensor
    sin: torch.Tensor

    def tokens(self, start: int, stop: int) -> RopeTable:
        return RopeTable(self.cos[start:stop], self.sin[start:stop])

    def inverse(self) -> RopeTable:
        return RopeTable(self.cos, -self.sin)


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Channels given to (time, height, width)."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def rope_table(
    frame_positions: list[int] | range,
    rows: int,
    columns: int,
    head_dim: int,
    device: torch.device,
    span: Span | None = None,
) -> RopeTable:
    """Table of all tokens of the frames at the given temporal positions; tokens run column fastest, then row, then
    frame.

    Args:
        span: what rows and columns are stretched to; None: a token is one position.
    """
    time_width, height_width, width_width = axis_widths(head_dim)
    down, across = (1.0, 1.0) if span is None else (span[0] / rows, span[1] / columns)
    vertical, horizontal = (
        _angles(range(count), width, device) * scale
        for count, width, scale in ((rows, height_width, down), (columns, width_width, across))
    )
    parts = (
        _angles(frame_positions, time_width, device)[:, None, None].expand(-1, rows, columns, -1),
        vertical[None, :, None].expand(len(frame_positions), -1, columns, -1),
        horizontal[None, None, :].expand(len(frame_positions), rows, -1, -1),
    )
    angles = torch.cat(parts, dim=-1).flatten(0, 2)
    return RopeTable(angles.cos().float(), angles.sin().float())


def _angles(positions: Sequence[int], width: int, device: torch.device) -> torch.Tensor:
    frequency = THETA ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    return _numbers(positions, device)[:, None] * frequency


def _numbers(positions: Sequence[int], device: torch.device) -> torch.Tensor:
    """The positions as float64, made on the device: a list would be copied there, and the host would wait."""
    breaks = [place for place in range(1, len(positions)) if positions[place] != positions[place - 1] + 1]
    runs = zip([0, *breaks], [*breaks, len(positions)], strict=True)
    parts = [
        torch.arange(positions[begin], positions[end - 1] + 1, dtype=torch.float64, device=device)
        for begin, end in runs
        if end > begin
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def rotate(x_BHLD: torch.Tensor, table: RopeTable) -> torch.Tensor:
    """Rotate queries or keys (B, heads, L, D) by their positions; result in x's dtype."""
    pairs = x_BHLD.float().unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():  # a third of the time; the compiler has no complex numbers
        product = torch.view_as_complex(pairs) * torch.complex(table.cos, table.sin)
        return torch.view_as_real(product).flatten(-2).to(x_BHLD.dtype)
    even, odd = pairs.unbind(-1)
    rotated = torch.stack((even * table.cos - odd * table.sin, even * table.sin + odd * table.cos), dim=-1)
    return rotated.flatten(-2).to(x_BHLD.dtype)

"""The background of each frame as a least-squares fit of the world's patterns: level, bars, checks, and the image of
it.

A square wave of period 8 on the pixel grid has only its first and third harmonic (the fifth folds onto the third), so
level + bars + products of bars along x and y span every background exactly; pixels under the object have weight 0.
Dimensions: B clip, T frame, C colour, Q basis functions, P pixels of a flattened frame.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from astro_cli.shapes.render import DIRECTION, PAN_SPEED, TEXTURE_DEPTH, TEXTURE_PERIOD, WORLD
from astro_cli.shapes.segment import ObjectMask, background_weight

RIDGE = 1e-3  # relative to the mean weight; only matters when the object or a low resolution hides a basis function
SPEEDS = (PAN_SPEED, 2 * PAN_SPEED)
# What a camera may do, in world units per frame, where its motion is looked for: rest, or pan.
PANS = ((0.0, 0.0), *((speed * x, speed * y) for speed in SPEEDS for x, y in DIRECTION.values()))
# Amplitude of the first harmonic of the renderer's wave (edges ramp over one pixel of eight): 4/pi * sinc(1/8).
FIRST_HARMONIC = TEXTURE_DEPTH * 4 / math.pi * math.sin(math.pi / 8) / (math.pi / 8)
CHECK_FIRST = FIRST_HARMONIC**2 / TEXTURE_DEPTH


@dataclass(frozen=True)
class Pattern:
    """The fitted background. Amplitudes are relative to the renderer's, so about 1 where that texture is present."""

    level_BT3: torch.Tensor  # mean colour
    bars_BT: torch.Tensor
    checks_BT: torch.Tensor
    third_BT: torch.Tensor  # amplitude of the third harmonic over that of the first, of the stronger texture
    image_BTCHW: torch.Tensor  # the fit, also under the object
    weight_BTHW: torch.Tensor  # where it was fitted


@functools.lru_cache(maxsize=8)
def _basis(size: int) -> torch.Tensor:
    """(Q=21, P): constant, 4 bar waves (first cos, sin, third cos, sin), 16 products of bar waves along x and y."""
    angle = (torch.arange(size) + 0.5) * (WORLD / size) * (2 * math.pi / TEXTURE_PERIOD)
    waves = torch.stack([angle.cos(), angle.sin(), (3 * angle).cos(), (3 * angle).sin()])
    bars = waves[:, None, :].expand(-1, size, -1)
    checks = (waves[:, None, None, :] * waves[None, :, :, None]).flatten(0, 1)
    return torch.cat([torch.ones(1, size, size), bars, checks]).flatten(1)


def fit_pattern(frames_BTCHW: torch.Tensor, seg: ObjectMask) -> Pattern:
    """Fit the background of every frame on its own (the camera may pan)."""
    batch, num_frames, _, size, _ = frames_BTCHW.shape
    basis_QP = _basis(size)
    count = len(basis_QP)
    weight_BTHW = background_weight(seg)
    weight_BTP = weight_BTHW.flatten(2)
    products_PQQ = (basis_QP[:, None] * basis_QP[None]).flatten(0, 1).T
    gram = (weight_BTP @ products_PQQ).unflatten(-1, (count, count))
    ridge = RIDGE * size**2 * torch.eye(count)
    right = (frames_BTCHW.flatten(3) * weight_BTP[:, :, None]) @ basis_QP.T  # B, T, C, Q
    coefs_BTQC = torch.linalg.solve(gram + ridge, right.transpose(-1, -2))
    image_BTCHW = (coefs_BTQC.transpose(-1, -2) @ basis_QP).reshape(batch, num_frames, 3, size, size)
    gray_BTQ = coefs_BTQC.mean(-1)
    bar_power = gray_BTQ[..., 1:5].square().unflatten(-1, (2, 2)).sum(-1)  # first, third
    # By harmonic of x, then of y.
    check_power = gray_BTQ[..., 5:].square().reshape(*gray_BTQ.shape[:2], 2, 2, 2, 2).sum((-3, -1))
    bars_BT, checks_BT = bar_power[..., 0].sqrt() / FIRST_HARMONIC, check_power[..., 0, 0].sqrt() / CHECK_FIRST
    third_of_bars = bar_power[..., 1] / bar_power[..., 0].clamp(min=1e-8)
    third_of_checks = (check_power[..., 0, 1] + check_power[..., 1, 0]) / 2 / check_power[..., 0, 0].clamp(min=1e-8)
    third_BT = torch.where(bars_BT > checks_BT, third_of_bars, third_of_checks).sqrt()
    return Pattern(coefs_BTQC[..., 0, :], bars_BT, checks_BT, third_BT, image_BTCHW, weight_BTHW)

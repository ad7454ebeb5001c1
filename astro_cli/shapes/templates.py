"""A bank of ideal object mattes over shape, radius and blur, and how well a measured matte fits each.

Dimensions: B clip, K template, P pixels of a flattened matte, H, W pixels. Templates are centred on their phase centre.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from astro_cli.shapes import render
from astro_cli.shapes.grammar import SHAPES, SIZES
from astro_cli.shapes.render import RADIUS, RADIUS_JITTER, WORLD
from astro_cli.shapes.segment import EPS, frequencies, lowpass, phase_center, shift_to_origin

RADIUS_STEPS = 5  # per size, over the renderer's jitter; 0.2 apart, finer than pixels resolve
BLURS = (0.0, 0.9, 1.6)  # world units; so that a soft decoder's circle is not taken for another shape or a larger one


@dataclass(frozen=True)
class Bank:
    """K templates and what each one stands for."""

    matte_KP: torch.Tensor
    crisp_KP: torch.Tensor  # the same object without blur
    power_KP: torch.Tensor  # |FFT|^2, for the norm under motion blur
    shape_K: torch.Tensor
    size_K: torch.Tensor
    offset_K2: torch.Tensor  # phase centre minus the renderer's centre (a triangle's is below its nominal centre)


@functools.lru_cache(maxsize=8)
def bank(size: int, blurs: tuple[float, ...] = BLURS) -> Bank:
    """Templates rendered by `render.coverage` at a resolution of `size` pixels."""
    jitter = torch.linspace(-RADIUS_JITTER, RADIUS_JITTER, RADIUS_STEPS)
    shape_M, size_M, _ = torch.cartesian_prod(torch.arange(4), torch.arange(2), torch.arange(RADIUS_STEPS)).T
    radius_M = (torch.tensor([RADIUS[name] for name in SIZES])[:, None] + jitter).repeat(len(SHAPES), 1).flatten()
    axis = render.wrap((torch.arange(size) + 0.5) * (WORLD / size))
    dx_MHW, dy_MHW = (
        axis[None, None, :].expand(len(shape_M), size, -1),
        axis[None, :, None].expand(len(shape_M), -1, size),
    )
    crisp_MHW = render.coverage(shape_M, dx_MHW, dy_MHW, radius_M[:, None, None])
    offset_M2 = render.wrap(phase_center(crisp_MHW))
    crisp_MHW = shift_to_origin(crisp_MHW, offset_M2)
    matte_KHW = torch.cat([lowpass(crisp_MHW, blur) for blur in blurs])
    repeat = len(blurs)
    return Bank(
        matte_KP=matte_KHW.flatten(1),
        crisp_KP=crisp_MHW.flatten(1).repeat(repeat, 1),
        power_KP=torch.fft.fft2(matte_KHW).abs().square().flatten(1) / size**2,
        shape_K=shape_M.repeat(repeat),
        size_K=size_M.repeat(repeat),
        offset_K2=offset_M2.repeat(repeat, 1),
    )


def correlate(matte: torch.Tensor, templates: Bank) -> torch.Tensor:
    """Cosine (..., K) between centred mattes (..., H, W) and the templates; insensitive to the matte's scale."""
    flat = matte.flatten(-2)
    norm = flat.norm(dim=-1, keepdim=True) * templates.matte_KP.norm(dim=-1)
    return flat @ templates.matte_KP.T / norm.clamp(min=EPS)


def correlate_moving(matte_BHW: torch.Tensor, velocity_B2: torch.Tensor, templates: Bank) -> torch.Tensor:
    """Cosine (B, K) with templates that carry the motion blur of `velocity_B2` (world units per frame).

    The blur h is symmetric, so <matte, h * template> = <h * matte, template> and the templates need no copy per clip.
    """
    size = matte_BHW.shape[-1]
    f = frequencies(size)
    phase_BHW = (f * velocity_B2[:, :1])[:, None, :] + (f * velocity_B2[:, 1:])[:, :, None]
    sub_step = render.SHUTTER / render.SUB_FRAMES
    response_BHW = (
        1 + 2 * torch.cos(2 * math.pi / WORLD * sub_step * phase_BHW)
    ) / 3  # the renderer's three sub-frames
    blurred_BHW = torch.fft.ifft2(torch.fft.fft2(matte_BHW) * response_BHW).real
    norm_BK = (response_BHW.square().flatten(1) @ templates.power_KP.T).sqrt() * matte_BHW.flatten(1).norm(
        dim=-1, keepdim=True
    )
    return blurred_BHW.flatten(1) @ templates.matte_KP.T / norm_BK.clamp(min=EPS)


def transfer(matte_BHW: torch.Tensor, crisp_BP: torch.Tensor, band: tuple[float, float]) -> torch.Tensor:
    """(B,) contrast of a matte's fine detail relative to the crisp template, the better of the two axes.

    Regression of the matte's spectrum on the template's over `band` (cycles per world), along x and along y. Linear in
    the matte, so noise does not pass for sharpness. The better axis, because motion blurs one axis only, and a frozen
    frame keeps that blur.
    """
    size = matte_BHW.shape[-1]
    f = frequencies(size)
    fy, fx = f[:, None], f[None, :]
    in_band = (fx**2 + fy**2 >= band[0] ** 2) & (fx**2 + fy**2 <= band[1] ** 2)
    spectrum_BHW = torch.fft.fft2(matte_BHW)
    ideal_BHW = torch.fft.fft2(crisp_BP.unflatten(1, (size, size)))
    cross_BHW, power_BHW = (spectrum_BHW * ideal_BHW.conj()).real, ideal_BHW.abs().square()
    ratios = []
    for along in (fx.abs() > fy.abs(), fy.abs() > fx.abs()):
        chosen = in_band & along
        ratios.append((cross_BHW * chosen).sum((-2, -1)) / (power_BHW * chosen).sum((-2, -1)).clamp(min=EPS))
    return torch.maximum(*ratios)

"""Separates the one saturated object of a clip from its neutral background: matte, colour, position, noise level.

Objects are saturated and backgrounds neutral, so the chroma of a pixel (its colour minus its own mean) is the object's
chroma times its coverage, and zero on the background: the matte is a linear function of the pixels, exact under motion
blur and unbiased by noise.
Dimensions: B clip, T frame, N frames of all clips, H, W pixels. Lengths in world units (the torus is 32 wide at every
resolution).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from astro_cli.shapes.render import WORLD, wrap

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SMOOTH_SIGMA = (
    0.8  # world units; takes white noise down to a third and leaves a 3-pixel arm of the smallest cross standing
)
SUPPORT_LEVEL = 0.25  # of the plateau; noise of sigma 0.08 stays below it after smoothing, a one-pixel edge ramp above
BACKGROUND_LEVEL = 0.12  # of the plateau, after smoothing: about one pixel outside the visible edge
HUE_POWER = (
    3  # how strongly saturated pixels dominate the hue estimate: 900 noisy gray pixels weigh less than 40 red ones
)
MIN_CHROMA = (
    0.1  # a plateau below this is no object (the palette's weakest has 0.46); keeps noise from being blown up to one
)
EPS = 1e-8
# |N(0, 1)| is below 0.3186 for a quarter of all draws; the mixed second difference of white noise has six times its
# sigma
NOISE_QUANTILE, NOISE_QUARTILE, NOISE_GAIN = 0.25, 0.3186, 6.0


@dataclass(frozen=True)
class ObjectMask:
    """The object of every frame."""

    alpha_BTHW: torch.Tensor  # coverage; zero outside the object's support, not clamped inside
    smooth_BTHW: torch.Tensor  # low-passed coverage, not cut off; says where the background is safe
    chroma_BT: torch.Tensor  # length of the object's chroma vector
    hue_BT3: torch.Tensor  # unit chroma vector
    center_BT2: torch.Tensor  # x, y in [0, 32), phase of the first Fourier mode
    area_BT: torch.Tensor  # square world units


def to_gray(frames_BTCHW: torch.Tensor) -> torch.Tensor:
    """Luma (B, T, H, W), ITU-R BT.601."""
    weight_C = torch.tensor(LUMA, dtype=frames_BTCHW.dtype, device=frames_BTCHW.device)
    return torch.einsum("btchw,c->bthw", frames_BTCHW, weight_C)


def frequencies(size: int, device: torch.device | None = None) -> torch.Tensor:
    """Integer frequencies (size,) in cycles per world, in FFT order."""
    return torch.fft.fftfreq(size, d=1.0 / size, device=device)


def lowpass_filter(size: int, sigma: float, device: torch.device | None = None) -> torch.Tensor:
    """Half-spectrum (size, size // 2 + 1) of a Gaussian blur on the torus; sigma in world units."""
    fy, fx = frequencies(size, device)[:, None], frequencies(size, device).abs()[None, : size // 2 + 1]
    return torch.exp(-2 * (math.pi * sigma / WORLD) ** 2 * (fx**2 + fy**2))


def lowpass(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (..., size, size) images on the torus; sigma in world units."""
    size = images.shape[-1]
    return torch.fft.irfft2(torch.fft.rfft2(images) * lowpass_filter(size, sigma, images.device), s=(size, size))


def noise_sigma(gray_NHW: torch.Tensor) -> torch.Tensor:
    """Sigma (...,) of the white noise in (..., H, W) images.

    The mixed second difference is zero on bars and flat areas; where the world has corners it is not, but they cover
    less than three quarters of the pixels, so the lower quartile sees noise only.
    """
    padded = F.pad(gray_NHW.flatten(0, -3)[:, None], (1, 1, 1, 1), mode="circular")[:, 0]
    rows = padded[:, :-2] - 2 * padded[:, 1:-1] + padded[:, 2:]
    mixed = (rows[..., :-2] - 2 * rows[..., 1:-1] + rows[..., 2:]).abs().flatten(1)
    rank = max(1, round(NOISE_QUANTILE * mixed.shape[1]))
    return (mixed.kthvalue(rank, dim=1).values / (NOISE_QUARTILE * NOISE_GAIN)).unflatten(0, gray_NHW.shape[:-2])


def phase_center(mask: torch.Tensor) -> torch.Tensor:
    """Centres (..., 2), x then y in [0, 32), of (..., size, size) masks: phase of the first Fourier mode, so safe on
    the torus.
    """
    size = mask.shape[-1]
    angle = (torch.arange(size, device=mask.device) + 0.5) * (2 * math.pi / size)
    wave = torch.stack([angle.cos(), angle.sin()], dim=1)
    modes = torch.stack([mask.sum(-2) @ wave, mask.sum(-1) @ wave], dim=-2)  # (..., axis x|y, cos|sin)
    return torch.remainder(torch.atan2(modes[..., 1], modes[..., 0]) * (WORLD / (2 * math.pi)), WORLD)


def shift_to_origin(images: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Move (..., size, size) images so that `center` (..., 2) comes to lie at world position (0, 0); sub-pixel, on the
    torus.
    """
    size = images.shape[-1]
    f = frequencies(size, images.device)
    ramp_x = torch.exp(2j * math.pi / WORLD * f[: size // 2 + 1].abs() * center[..., :1])
    ramp_y = torch.exp(2j * math.pi / WORLD * f * center[..., 1:])
    spectrum = torch.fft.rfft2(images) * ramp_x[..., None, :] * ramp_y[..., :, None]
    return torch.fft.irfft2(spectrum, s=(size, size))


def steps(center_BT2: torch.Tensor) -> torch.Tensor:
    """Displacements (B, T-1, 2) from frame to frame, the short way round the torus."""
    return wrap(center_BT2[:, 1:] - center_BT2[:, :-1])


def segment(frames_BTCHW: torch.Tensor) -> ObjectMask:
    """Matte the object of every frame on its own, so that a change of colour over time stays visible."""
    chroma_BTCHW = frames_BTCHW - frames_BTCHW.mean(2, keepdim=True)
    soft_BTCHW = lowpass(chroma_BTCHW, SMOOTH_SIGMA)
    weight_BTHW = soft_BTCHW.square().sum(2).pow(HUE_POWER / 2)
    hue_BT3 = F.normalize(torch.einsum("btchw,bthw->btc", soft_BTCHW, weight_BTHW), dim=-1, eps=1e-12)
    soft_BTHW = torch.einsum("btchw,btc->bthw", soft_BTCHW, hue_BT3)
    raw_BTHW = torch.einsum("btchw,btc->bthw", chroma_BTCHW, hue_BT3)
    support_BTHW = soft_BTHW > SUPPORT_LEVEL * _plateau(soft_BTHW.clamp(min=0))[..., None, None]
    raw_BTHW = raw_BTHW * support_BTHW
    chroma_BT = _plateau(raw_BTHW)
    scale_BT = chroma_BT.clamp(min=MIN_CHROMA)[..., None, None]
    alpha_BTHW = raw_BTHW / scale_BT
    pixel = (WORLD / frames_BTCHW.shape[-1]) ** 2
    return ObjectMask(
        alpha_BTHW=alpha_BTHW,
        smooth_BTHW=soft_BTHW / scale_BT,
        chroma_BT=chroma_BT,
        hue_BT3=hue_BT3,
        center_BT2=phase_center(alpha_BTHW),
        area_BT=alpha_BTHW.sum((-2, -1)) * pixel,
    )


def _plateau(mask_BTHW: torch.Tensor) -> torch.Tensor:
    """Height (B, T) of a mask's plateau: its mean weighted by its own square, so that edges count little."""
    square = mask_BTHW.square()
    return (square * mask_BTHW).sum((-2, -1)).clamp(min=0) / square.sum((-2, -1)).clamp(min=EPS)


def background_weight(seg: ObjectMask) -> torch.Tensor:
    """(B, T, H, W) in [0, 1]: 1 well outside the object, 0 on it and on its rim."""
    return (1 - lowpass(seg.smooth_BTHW, SMOOTH_SIGMA) / BACKGROUND_LEVEL).clamp(0, 1)

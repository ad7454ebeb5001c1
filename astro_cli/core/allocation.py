"""Where a frame's features say that something is: maps of their principal components, at the latents' places.

    z_j = (F - mean F) u_j,   lambda_j the share of the variance            j = 1 .. K principal components
    S = sum_j lambda_j norm(z_j),   norm to [0, 1];   smoothed, resized to the latent grid, aligned in time

The sign of a component is arbitrary. It is chosen so that the frame's border is low.
Source: ViPO (arXiv 2511.18719), perceptual structuring module; TeleBoost's released code for `released_map`.
Dimensions: N frame of all clips, D feature, L place, J component, B clip, T frame, F latent frame, h, w rows and
columns of places.

**Deviations**: the release reverses every component, whatever its sign, and takes three min-max passes. A latent
frame's map is the mean over its own frames, where the release interpolates in time. Smoothing ends at the border.
"""

from __future__ import annotations

import torch
from torch.nn import functional

FLAT = 1e-10  # variance of features, as a share of their mean square, below which a frame shows nothing


def components(features_NDhw: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores (N, J, h, w) of the first components, their shares of the variance (N, J), and which frames are flat (N,).

    Signs are arbitrary.
    """
    rows, columns = features_NDhw.shape[-2:]
    features_NLD = features_NDhw.flatten(2).mT.double()
    centred = features_NLD - features_NLD.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred.mT @ centred / centred.shape[1])
    total = values.clamp_min(0).sum(1)
    flat = total <= FLAT * features_NLD.square().sum(2).mean(1)
    share = values.flip(1)[:, :count].clamp_min(0) / total.clamp_min(1e-300)[:, None]
    scores = (centred @ vectors.flip(2)[:, :, :count]).mT.unflatten(2, (rows, columns))
    return scores.float(), share.float(), flat


def border_low(scores_NJhw: torch.Tensor) -> torch.Tensor:
    """Each map with the sign that makes its border lower than its mean."""
    border = torch.ones(scores_NJhw.shape[-2:], dtype=torch.bool, device=scores_NJhw.device)
    border[1:-1, 1:-1] = False
    higher = scores_NJhw[..., border].mean(-1) > scores_NJhw.mean((-2, -1))
    return torch.where(higher[..., None, None], -scores_NJhw, scores_NJhw)


def unit(maps: torch.Tensor, dims: tuple[int, ...] = (-2, -1), flat: float = 0.0) -> torch.Tensor:
    """To [0, 1] by minimum and maximum over `dims`; a constant becomes `flat`."""
    low, high = maps.amin(dims, keepdim=True), maps.amax(dims, keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (maps - low) / torch.where(spread > 0, spread, 1.0), flat)


def smooth(maps_Nhw: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur, at the border over the places that there are; `sigma` in places, 0 for none."""
    if not sigma:
        return maps_Nhw
    rows, columns = (_blur(size, sigma).to(maps_Nhw) for size in maps_Nhw.shape[-2:])
    return rows @ maps_Nhw @ columns.mT


def _blur(size: int, sigma: float) -> torch.Tensor:
    place = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-(place[:, None] - place).square() / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def resized(maps_Nhw: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if maps_Nhw.shape[-2:] == size:
        return maps_Nhw
    return functional.interpolate(maps_Nhw[:, None], size, mode="bilinear", antialias=True)[:, 0]


def at_latents(maps_BThw: torch.Tensor, frames: int, *, opens: bool) -> torch.Tensor:
    """(B, F, h, w): means over the frames of each latent, of which the first has one where the clip opens a video."""
    if not opens or frames == 1:
        return maps_BThw.unflatten(1, (frames, -1)).mean(2)
    first, rest = maps_BThw[:, :1], maps_BThw[:, 1:]
    return torch.cat((first, rest.unflatten(1, (frames - 1, -1)).mean(2)), 1)


def frame_maps(
    features_BTDhw: torch.Tensor, size: tuple[int, int], count: int, sigma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """S (B, T, h, w) >= 0 of every frame at the latents' places, and which frames are flat (B, T), whose S is 0."""
    batch = features_BTDhw.shape[:2]
    scores, share, flat = components(features_BTDhw.flatten(0, 1), count)
    weighted = (share[..., None, None] * unit(border_low(scores))).sum(1)
    maps = resized(smooth(weighted, sigma), size).clamp_min(0)
    return torch.where(flat[:, None, None], 0.0, maps).unflatten(0, batch), flat.unflatten(0, batch)


def mean_one(maps_BThw: torch.Tensor, flat_BT: torch.Tensor, frames: int, *, opens: bool) -> torch.Tensor:
    """M (B, F, h, w) of mean 1 per clip; flat frames get the mean of the others, a clip of flat frames ones."""
    level = maps_BThw.sum((1, 2, 3)) / (~flat_BT).sum(1).clamp_min(1) / maps_BThw[0, 0].numel()
    filled = torch.where(flat_BT[..., None, None], level[:, None, None, None], maps_BThw)
    aligned = at_latents(filled, frames, opens=opens)
    mean = aligned.mean((1, 2, 3), keepdim=True)
    return torch.where(mean > 0, aligned / torch.where(mean > 0, mean, 1.0), 1.0)


def released_map(
    features_BTDhw: torch.Tensor, size: tuple[int, int], frames: int, count: int, sigma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """TeleBoost's M (B, F, h, w) in [0, 1], and which frames are flat (B, T): components reversed, a min-max pass after
    smoothing, after resizing and over the volume; constants become ones.
    """
    batch = features_BTDhw.shape[:2]
    scores, share, flat = components(features_BTDhw.flatten(0, 1), count)
    weights = share / share.sum(1, keepdim=True).clamp_min(1e-8)
    weighted = (weights[..., None, None] * unit(-scores, flat=0.5)).sum(1).clamp(0, 1)
    maps = unit(resized(unit(smooth(weighted, sigma), flat=0.5), size), flat=1.0)
    maps = torch.where(flat[:, None, None], 1.0, maps).unflatten(0, batch)
    if batch[1] != frames:
        volume = (frames, *size)
        maps = functional.interpolate(maps[:, None], volume, mode="trilinear", align_corners=False)[:, 0]
    return unit(maps, (1, 2, 3), flat=1.0), flat.unflatten(0, batch)

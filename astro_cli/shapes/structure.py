"""Structural stability of clips by the oracle of the embedded world: is the object one rigid shape on a steady path,
and the background one pattern behind a panning camera?

    s = IoU x fit
    IoU = mean_t  sum min(a_t, b_t) / sum max(a_t, b_t)
    fit = exp(-sqrt(p^2 + q^2) / R)

a_t is the object's matte and b_t the world's template that fits the whole clip best, at the place of the fitted path:
the median, along each axis, of where the object is, where the two frames before lead, and where the two after do. So a
jump of one frame counts, and a bounce does not. p is the RMS of what the world's patterns leave unexplained of the
background beyond its noise, q the RMS change over time of what they explain, once the pan is out.
Source: TeleBoost (arXiv 2602.07595), sections 2.3 and 7.3.1, which show pictures and give no measure; this one is ours.
The training weight, `rewards.structure`, is another formula.
Dimensions: B clip, T frame, K template, H, W pixels. Lengths in world units (32 = the torus).
"""

from __future__ import annotations

import torch

from astro_cli.shapes.pattern import PANS, fit_pattern
from astro_cli.shapes.render import wrap
from astro_cli.shapes.segment import noise_sigma, segment, shift_to_origin, to_gray
from astro_cli.shapes.templates import bank, correlate

BACKGROUND_SCALE = 0.05  # R: half of the depth of the world's textures
EPS = 1e-6


@torch.no_grad()
def structural_stability(frames_BTCHW: torch.Tensor) -> torch.Tensor:
    """(B,) s in [0, 1] of clips (B, T, 3, S, S) in [0, 1]."""
    frames_BTCHW = frames_BTCHW.float().cpu()
    seg, templates = segment(frames_BTCHW), bank(frames_BTCHW.shape[-1])
    centered = shift_to_origin(seg.alpha_BTHW, seg.center_BT2)
    best_B = correlate(centered.mean(1), templates).argmax(1)
    size = frames_BTCHW.shape[-1]
    template_B1HW = templates.matte_KP[best_B].unflatten(1, (1, size, size))
    on_path = shift_to_origin(seg.alpha_BTHW, seg.center_BT2 + off_path(seg.center_BT2))
    pattern = fit_pattern(frames_BTCHW, seg)
    left = (frames_BTCHW - pattern.image_BTCHW).square().mean(2)
    weight = pattern.weight_BTHW
    unexplained = (weight * left).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=EPS)
    noise = noise_sigma(frames_BTCHW.flatten(1, 2)).square().mean(1)
    change = pan_residual(to_gray(pattern.image_BTCHW))
    rms = ((unexplained - noise).clamp(min=0) + change.square()).sqrt()
    return iou(on_path, template_B1HW) * torch.exp(-rms / BACKGROUND_SCALE)


def iou(mattes_BTHW: torch.Tensor, template_B1HW: torch.Tensor) -> torch.Tensor:
    """(B,) mean over frames of the overlap with a template, both of coverage in [0, 1]."""
    each, template = mattes_BTHW.clamp(0, 1), template_B1HW.clamp(0, 1)
    common, either = torch.minimum(each, template).sum((-2, -1)), torch.maximum(each, template).sum((-2, -1))
    return (common / either.clamp(min=EPS)).mean(1)


def off_path(center_BT2: torch.Tensor) -> torch.Tensor:
    """(B, T, 2) from where the object is to the fitted path; 0 in the two frames at either end."""
    off = torch.zeros_like(center_BT2)
    if center_BT2.shape[1] < 5:
        return off
    inner = center_BT2[:, 2:-2]
    before = wrap(2 * center_BT2[:, 1:-3] - center_BT2[:, :-4] - inner)
    after = wrap(2 * center_BT2[:, 3:-1] - center_BT2[:, 4:] - inner)
    off[:, 2:-2] = torch.stack((torch.zeros_like(inner), before, after)).median(0).values
    return off


def pan_residual(gray_BTHW: torch.Tensor) -> torch.Tensor:
    """(B,) RMS difference of pictures from their mean over time, for the pan that leaves least."""
    times, left = torch.arange(gray_BTHW.shape[1], dtype=gray_BTHW.dtype), []
    for pan in PANS:
        moved = (-times[:, None] * torch.tensor(pan)).expand(len(gray_BTHW), -1, -1)
        still = shift_to_origin(gray_BTHW, moved)
        left.append((still - still.mean(1, keepdim=True)).square().mean((1, 2, 3)).sqrt())
    return torch.stack(left).amin(0)

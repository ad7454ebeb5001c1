"""Structural stability of clips of the embedded world: a score that weighs training clips, without labels.

    s = IoU x fit
    IoU = mean_t  sum min(a_t, a) / sum max(a_t, a),   fit = exp(-r / R)

a_t is the object's matte moved to its own centre and a its mean over time; r is the RMS difference of the background
from its own mean picture, once the camera's pan that explains most is taken out.

So a rigid object over one background has s near 1, however object and camera move; objects that deform or vanish and
backgrounds that collapse have less. The judge of evaluation, `shapes.structure`, is another formula.
Source: TeleBoost (arXiv 2602.07595), section 2.3, "scene-level stability and object-level geometric consistency".
Dimensions: B clip, T frame, H, W pixels. Lengths in world units (32 = the torus).

**Deviations**: the paper gives no formula; this one is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from astro_cli.shapes.pattern import PANS
from astro_cli.shapes.segment import background_weight, segment, shift_to_origin, to_gray
from astro_cli.spec import STRUCTURE

BACKGROUND_SCALE = 0.05  # R: half of the depth of the world's textures
EPS = 1e-6


def overlap(mattes_BTHW: Tensor) -> Tensor:
    """(B,) mean IoU of each matte with the mean of its clip's; coverage outside of [0, 1] is cut off."""
    each = mattes_BTHW.clamp(0, 1)
    mean = each.mean(1, keepdim=True)
    common, either = torch.minimum(each, mean).sum((-2, -1)), torch.maximum(each, mean).sum((-2, -1))
    return (common / either.clamp(min=EPS)).mean(1)


def residual(gray_BTHW: Tensor, weight_BTHW: Tensor) -> Tensor:
    """(B,) RMS difference of the background from its own mean picture, for the pan that leaves least.

    Args:
        weight_BTHW: in [0, 1], 1 where the background is seen.
    """
    times = torch.arange(gray_BTHW.shape[1], dtype=gray_BTHW.dtype, device=gray_BTHW.device)
    left = []
    for pan in PANS:
        moved = -times[:, None] * gray_BTHW.new_tensor(pan)  # where the background of time 0 is now
        center = moved.expand(len(gray_BTHW), -1, -1)
        gray, weight = shift_to_origin(gray_BTHW, center), shift_to_origin(weight_BTHW, center).clamp(0, 1)
        total = weight.sum(1, keepdim=True)
        mean = (weight * gray).sum(1, keepdim=True) / total.clamp(min=EPS)
        square = (weight * (gray - mean).square()).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=EPS)
        left.append(square.sqrt())
    return torch.stack(left).amin(0)


class StructuralStability:
    """s of each clip, in [0, 1]; prompts are not read."""

    key = STRUCTURE
    num_frames_min = 2

    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        seg = segment(frames_BTCHW)
        mattes = shift_to_origin(seg.alpha_BTHW, seg.center_BT2)
        fit = torch.exp(-residual(to_gray(frames_BTCHW), background_weight(seg)) / BACKGROUND_SCALE)
        return overlap(mattes) * fit

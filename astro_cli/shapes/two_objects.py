"""The oracle on clips of two objects of different colours: each is measured on the clip without the other.

The chroma of a pixel is the sum of the two objects' chromas, each times its visible coverage, so the coverages follow
from the stated colours by least squares without negative values. What lies behind an object that is taken away is the
fitted background; where it hid the other one, that one has a hole.
Dimensions: B clip, T frame, C colour, H, W pixels, O = 2 objects.
"""

from __future__ import annotations

import dataclasses

import torch

from astro_cli.shapes.grammar import Scene
from astro_cli.shapes.oracle import agreement, measure
from astro_cli.shapes.pattern import fit_pattern
from astro_cli.shapes.render import RGB
from astro_cli.shapes.segment import SMOOTH_SIGMA, lowpass, segment

CORE = 0.5  # coverage from which a pixel says what colour its object has


def unmix(frames_BTCHW: torch.Tensor, scenes: list[Scene]) -> torch.Tensor:
    """Visible coverage (B, 2, T, H, W) of both objects of every scene, >= 0.

    Raises:
        ValueError: a scene without two objects of two stated colours.
    """
    hues_BO3 = torch.stack([_chromas(scene) for scene in scenes])
    chroma_BTCHW = frames_BTCHW - frames_BTCHW.mean(2, keepdim=True)
    along_BOTHW = torch.einsum("btchw,boc->bothw", chroma_BTCHW, hues_BO3)
    gram_BOO = hues_BO3 @ hues_BO3.mT
    first, second, both = gram_BOO[:, 0, 0], gram_BOO[:, 1, 1], gram_BOO[:, 0, 1]
    first, second, both = (value[:, None, None, None] for value in (first, second, both))
    alone = along_BOTHW / torch.stack((first, second), 1)
    determinant = first * second - both * both
    crossed = torch.stack((second, first), 1) * along_BOTHW - both[:, None] * along_BOTHW.flip(1)
    joint = crossed / determinant[:, None]
    # Least squares with both >= 0: the joint solution where it is so, else the better one of either alone.
    gain = alone.clamp(min=0).square() * torch.stack((first, second), 1)
    better = gain >= gain.flip(1)
    single = torch.where(better, alone.clamp(min=0), 0.0)
    return torch.where((joint >= 0).all(1, keepdim=True), joint, single)


def _chromas(scene: Scene) -> torch.Tensor:
    """(2, 3) the stated colours without their mean."""
    colors = [spec.color for spec in scene.objects]
    if not is_pair(scene):
        raise ValueError(f"expected two objects of two stated colours, found {colors}")
    rgb_O3 = torch.tensor([RGB[str(color)] for color in colors])
    return rgb_O3 - rgb_O3.mean(1, keepdim=True)


def without(frames_BTCHW: torch.Tensor, cover_BOTHW: torch.Tensor, place: int) -> torch.Tensor:
    """The clips with the object at `place` replaced by the fitted background."""
    every = cover_BOTHW.sum(1)
    seg = dataclasses.replace(segment(frames_BTCHW), smooth_BTHW=lowpass(every, SMOOTH_SIGMA))
    ground_BTCHW = fit_pattern(frames_BTCHW, seg).image_BTCHW
    cover_BTHW = cover_BOTHW[:, place].clamp(max=1)
    core_BTHW = cover_BTHW * (cover_BTHW > CORE) * (cover_BOTHW[:, 1 - place] < 1 - CORE)
    over_BTCHW = frames_BTCHW - (1 - cover_BTHW)[:, :, None] * ground_BTCHW
    power_B = core_BTHW.square().sum((1, 2, 3)).clamp(min=1.0)
    rgb_B3 = torch.einsum("btchw,bthw->bc", over_BTCHW, core_BTHW) / power_B[:, None]
    return frames_BTCHW - cover_BTHW[:, :, None] * (rgb_B3[:, None, :, None, None] - ground_BTCHW)


def is_pair(scene: Scene) -> bool:
    """Whether a scene has two objects of two stated colours."""
    colors = [spec.color for spec in scene.objects]
    return len(colors) == 2 and None not in colors and colors[0] != colors[1]


@torch.no_grad()
def pair_agreement(frames_BTCHW: torch.Tensor, scenes: list[Scene], pace: float = 1.0) -> list[dict[str, torch.Tensor]]:
    """`oracle.agreement` of the first and of the second object, with the background's attributes in both.

    Raises:
        ValueError: a scene without two objects of two stated colours.
    """
    cover_BOTHW = unmix(frames_BTCHW, scenes)
    results = []
    for place in (0, 1):
        seen = measure(without(frames_BTCHW, cover_BOTHW, 1 - place).clamp(0, 1), pace)
        results.append(agreement(seen, [dataclasses.replace(s, objects=(s.objects[place],)) for s in scenes]))
    return results

"""What the renderer knows of every latent cell: maps for representation alignment.

A cell's ten features are the share of it that the object covers, that share times: one for the object's shape (four
maps), its velocity x and y, and one for a large object; then the share it covers in the latent before and in the one
after, which links the latents of a clip.
Dimensions: B clip, F latent frame, K feature, H, W latent cells or pixels.
"""

from __future__ import annotations

import torch

from astro_cli.shapes.grammar import SHAPES, Scene
from astro_cli.shapes.render import RADIUS, WORLD, Layout, centers, coverage, wrap

FEATURES = 6 + len(SHAPES)  # coverage, shapes, velocity x and y, large, coverage before and after


def object_features(scenes: list[Scene], layout: Layout, times_F: torch.Tensor, cells: int, group: int) -> torch.Tensor:
    """Maps of the first object of complete scenes.

    Args:
        times_F: the frame each latent frame ends with.
        cells: rows and columns of the latent.
        group: frames of a latent frame.

    Returns:
        (B, F, 10, cells, cells), coverage in [0, 1], velocities in world units per frame.
    """
    first = [scene.objects[0] for scene in scenes]
    center_BF2 = centers(scenes, layout, times_F)[:, 0]
    half = group / 2
    velocity_BF2 = (center_BF2 - centers(scenes, layout, times_F - half)[:, 0]) / half
    shape_B = torch.tensor([SHAPES.index(str(spec.shape)) for spec in first])
    radius_B = torch.tensor([RADIUS[str(spec.size)] for spec in first]) + layout.radius_BK[:, 0]
    covered_BFHW, before_BFHW, after_BFHW = (
        _covered(shape_B, radius_B, centers(scenes, layout, times_F + shift)[:, 0], cells)
        for shift in (0, -group, group)
    )
    frames = len(times_F)
    one_hot_BF4 = torch.nn.functional.one_hot(shape_B, len(SHAPES)).float()[:, None].expand(-1, frames, -1)
    large_BF1 = torch.tensor([float(spec.size == "large") for spec in first])[:, None, None].expand(-1, frames, -1)
    factors_BFK = torch.cat((torch.ones_like(large_BF1), one_hot_BF4, velocity_BF2, large_BF1), -1)
    own_BFKHW = covered_BFHW[:, :, None] * factors_BFK[..., None, None]
    return torch.cat((own_BFKHW, before_BFHW[:, :, None], after_BFHW[:, :, None]), 2)


def _covered(shape_B: torch.Tensor, radius_B: torch.Tensor, center_BF2: torch.Tensor, cells: int) -> torch.Tensor:
    """(B, F, cells, cells) share of every cell that a shape at these places covers."""
    size = int(WORLD)
    pixel = torch.arange(size) + 0.5
    dx = wrap(pixel[None, None, None, :] - center_BF2[..., 0, None, None]).expand(-1, -1, size, -1)
    dy = wrap(pixel[None, None, :, None] - center_BF2[..., 1, None, None]).expand(-1, -1, -1, size)
    covered = coverage(shape_B, dx, dy, radius_B[:, None, None, None])
    return covered.unflatten(-2, (cells, -1)).unflatten(-1, (cells, -1)).mean((-3, -1))

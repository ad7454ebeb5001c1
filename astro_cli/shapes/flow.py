"""Exact optical flow of rendered clips: where every pixel of a frame has gone in the next.

A pixel that an object covers at least by half moves with the object, the last one drawn where several do; the others
move with the background. A camera that pans by p moves all by -p. What leaves the picture comes in on the other side,
so a displacement may end outside of it.
Dimensions: B clip, K object slot, T frame, 2 x and y displacement in pixels, H, W pixels.
"""

from __future__ import annotations

import torch

from astro_cli.shapes.grammar import SHAPES, Scene
from astro_cli.shapes.render import DIRECTION, PAN_SPEED, RADIUS, WORLD, Layout, centers, coverage, wrap

OWN = 0.5  # coverage from which a pixel is the object's


def exact_flow(scenes: list[Scene], layout: Layout, num_frames: int, size: int = 32) -> torch.Tensor:
    """Flow of the clips that `render` draws of these scenes.

    Args:
        num_frames: T of the clips.
        size: height and width in pixels.

    Returns:
        float32 (B, T - 1, 2, size, size) in pixels, from each frame to the next.
    """
    times, scale = torch.arange(num_frames, dtype=torch.float32), size / WORLD
    pan_B2 = torch.tensor([DIRECTION[s.pan] if s.pan else (0.0, 0.0) for s in scenes]) * PAN_SPEED
    center_BKT2 = centers(scenes, layout, times) - pan_B2[:, None, None] * times[:, None]
    flow = (-pan_B2)[:, None, :, None, None].expand(-1, num_frames - 1, -1, size, size).clone()
    axis = (torch.arange(size) + 0.5) / scale
    for slot in range(center_BKT2.shape[1]):
        rows = torch.tensor([row for row, scene in enumerate(scenes) if slot < len(scene.objects)])
        specs = [scenes[row].objects[slot] for row in rows.tolist()]
        radius_B = torch.tensor([RADIUS[str(spec.size)] for spec in specs]) + layout.radius_BK[rows, slot]
        shape_B = torch.tensor([SHAPES.index(str(spec.shape)) for spec in specs])
        center_BT2 = center_BKT2[rows, slot]
        start_BN2 = center_BT2[:, :-1]
        dx = wrap(axis[None, :] - start_BN2[..., 0, None, None]).expand(-1, -1, size, -1)
        dy = wrap(axis[:, None] - start_BN2[..., 1, None, None]).expand(-1, -1, -1, size)
        own_BNHW = coverage(shape_B, dx, dy, radius_B[:, None, None, None]) >= OWN
        step_BN2 = center_BT2.diff(dim=1)
        flow[rows] = torch.where(own_BNHW[:, :, None], step_BN2[..., None, None], flow[rows])
    return flow * scale

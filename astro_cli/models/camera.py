"""The camera as input channels: per latent frame and cell the ray through it, relative to the frame before.

    ray of cell (y, x):  origin o = c_i - c_{i-1},   direction d = (x, y, D) / |(x, y, D)|

Origin and direction stand as they are, without a moment, and each is scaled to about unit deviation, so that no value
grows with the way that the camera has gone.
Source: AAPT (arXiv 2506.09350), supplement I.

**Deviations**: directions are centred, too. The camera slides at a distance D before the plane of the world, and does
not turn: directions are the same in all frames, and the origin's z is 0.
Dimensions: B sample, F latent frame, 2 x and y in world units, K channel, H, W latent rows and columns.
"""

from __future__ import annotations

import torch

from astro_cli.models.wan.config import CAMERA_CHANNELS
from astro_cli.shapes.camera import STEP, WAYS
from astro_cli.shapes.render import WORLD

DISTANCE = WORLD  # of the camera from the plane
# The deviation of a move along one axis, of moves drawn alike from `WAYS`: two of five go along it.
ORIGIN_DEVIATION = STEP * (2 / len(WAYS)) ** 0.5


def directions(height: int, width: int) -> torch.Tensor:
    """(3, H, W) unit directions x, y, z of the rays through the centres of a frame's cells."""
    y, x = (WORLD * ((torch.arange(count) + 0.5) / count - 0.5) for count in (height, width))
    rays = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width), torch.full((height, width), DISTANCE)))
    return rays / rays.norm(dim=0)


def camera_channels(moves_BF2: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, F, 6, H, W) origin and direction of every cell's ray, scaled."""
    rays = directions(height, width)
    deviation, mean = torch.std_mean(rays, dim=(1, 2), correction=0, keepdim=True)
    rays = ((rays - mean) / deviation.clamp_min(1e-6)).to(moves_BF2)
    origin = torch.nn.functional.pad(moves_BF2 / ORIGIN_DEVIATION, (0, 1))[..., None, None]
    shape = (*moves_BF2.shape[:2], CAMERA_CHANNELS // 2, height, width)
    return torch.cat((origin.expand(shape), rays.expand(shape)), 2)

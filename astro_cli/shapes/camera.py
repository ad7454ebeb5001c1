"""Where the camera of a clip goes, latent by latent, and how it is measured.

A latent's frames share one move: rest, or a pan of PAN_SPEED per frame to one side. The camera of a caption
(`Scene.pan`) goes one way for a whole clip; here it may turn with every latent, and no caption says so.
Source: AAPT (arXiv 2506.09350), supplement I: moves from frame to frame.

**Deviations**: the paper's cameras move and turn freely and are estimated from videos; here they slide before a plane,
and are known.
Dimensions: B clip, F latent frame, T frame, N = T - 1 steps, 2 x and y in world units, H, W pixels.
"""

from __future__ import annotations

import math

import torch

from astro_cli.core.rng import stream
from astro_cli.shapes.pattern import fit_pattern
from astro_cli.shapes.render import DIRECTION, PAN_SPEED, TEXTURE_PERIOD, WORLD
from astro_cli.shapes.segment import segment, steps, to_gray
from astro_cli.shapes.video_codec import GROUP

REST = "rest"
WAYS = {REST: (0.0, 0.0), **DIRECTION}
STEP = PAN_SPEED * GROUP  # of a latent that pans
GOES_ON = 0.5  # chance that a latent moves as the one before it did
CYCLES = round(WORLD / TEXTURE_PERIOD)  # of a texture, across the world


def random_moves(seeds: list[int], frames: int, use: str = "camera moves") -> torch.Tensor:
    """(B, F, 2) moves of clips of so many latent frames, each from its own seed; the first frame has none."""
    ways, clips = torch.tensor(list(WAYS.values())) * STEP, []
    for seed in seeds:
        rng = stream(seed, use)
        new, goes_on = torch.randint(len(ways), (frames,), generator=rng), torch.rand(frames, generator=rng) < GOES_ON
        chosen = [0]
        for frame in range(1, frames):
            chosen.append(chosen[-1] if frame > 1 and goes_on[frame] else int(new[frame]))
        clips.append(ways[chosen])
    return torch.stack(clips)


def path(moves_BF2: torch.Tensor) -> torch.Tensor:
    """(B, T, 2) where the camera is at every frame of clips of F latents, from (0, 0) on."""
    each = (moves_BF2[:, 1:] / GROUP).repeat_interleave(GROUP, 1)
    return torch.cat((torch.zeros_like(moves_BF2[:, :1]), each.cumsum(1)), 1)


@torch.no_grad()
def measured_steps(frames_BTCHW: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B, N, 2) each, of clips (B, T, 3, S, S) in [0, 1]: how the camera moves from frame to frame, as the checkered
    "background" tells, and an "object" that stands still in the world. Up to half a texture's period.
    """
    frames_BTCHW = frames_BTCHW.float().cpu()
    seen = segment(frames_BTCHW)
    spectrum = torch.fft.fft2(to_gray(fit_pattern(frames_BTCHW, seen).image_BTCHW))
    # A pattern of period p seen from x + c: its wave along a diagonal turns by 2 pi / p times the sum of both moves.
    turns = [_turn(spectrum[..., rows, CYCLES]) * TEXTURE_PERIOD / (2 * math.pi) for rows in (CYCLES, -CYCLES)]
    background = torch.stack((turns[0] + turns[1], turns[0] - turns[1]), -1) / 2
    return {"background": background, "object": -steps(seen.center_BT2)}


def _turn(wave_BT: torch.Tensor) -> torch.Tensor:
    """(B, N) change of a wave's phase from frame to frame, in (-pi, pi]."""
    return torch.angle(wave_BT[:, 1:] * wave_BT[:, :-1].conj())


def of_latents(steps_BN2: torch.Tensor) -> torch.Tensor:
    """(B, F - 1, 2) moves of the latents whose frames make these steps."""
    return steps_BN2.unflatten(1, (-1, GROUP)).sum(2)

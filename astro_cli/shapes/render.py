"""The renderer of the embedded world: complete scenes -> RGB clips, deterministic, vectorised over clips.

The world is a torus (what leaves on the right comes in on the left), so a video of any length is well defined. Edges
are anti-aliased over one pixel, and moving objects carry the motion blur of a 180-degree shutter.
Dimensions: B clip, K object slot, T frame, S sub-frame, H, W pixels. Lengths in pixels of a 32-pixel world, speeds in
pixels per frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from astro_cli.shapes.grammar import BACKGROUNDS, SHAPES, Motion, Scene

WORLD = 32.0  # pixels; other resolutions are the same world sampled finer
FPS = 8
RADIUS = {"small": 5.0, "large": 8.5}
RADIUS_JITTER = 0.4
SPEED = {"slowly": 1.5, "fast": 3.0}
SPEED_JITTER = 0.1  # relative
BOUNCE_PERIOD = 8.0  # frames of a full there-and-back
PAN_SPEED = 1.0
INSIDE_FRAMES = 9  # of a world without a grid: how long objects stay inside the picture
SEAM_SHARE = 0.1
SHUTTER = 0.5  # fraction of the frame time the shutter is open
SUB_FRAMES = 3
RGB = {
    "red": (0.90, 0.10, 0.12), "green": (0.10, 0.72, 0.20), "blue": (0.15, 0.25, 0.92),
    "yellow": (0.95, 0.86, 0.10), "purple": (0.62, 0.15, 0.80), "cyan": (0.10, 0.80, 0.88),
}  # fmt: skip
GRAY = {"black": 0.08, "gray": 0.45, "white": 0.88}
TEXTURE_PERIOD = 8.0
TEXTURE_DEPTH = 0.10  # added to and taken from the background's gray
DIRECTION = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
AXIS = {"horizontally": (1.0, 0.0), "vertically": (0.0, 1.0)}
SOFTEST = 0.8  # pixels: deviation of the blur of a clip out of focus
PALEST = 0.4  # share of its colour that a pale clip has lost
FLICKER = 0.015  # brightness added to and taken from every other frame of a clip that flickers
RARELY = 0.3  # share of the clips out of focus that flicker, and of those in focus that do not


@dataclass(frozen=True)
class World:
    """How what a caption never says is drawn, and how fast its speeds are.

    `pace`: factor on SPEED; `speed_jitter`: relative; `radius_jitter`: pixels.
    `grid`: pixels between the places where objects are whenever a group of `grid / pace` slow frames ends; bounces turn
        there, and textures sit on it. 0: objects start anywhere, most of them where they stay inside the picture.
    `looks`: whether clips differ in focus, colour and flicker, as videos of unlike cameras do. Students of such a world
        make clips of unlike quality from one prompt, so rewards have something to choose from.
    """

    pace: float = 1.0
    speed_jitter: float = SPEED_JITTER
    radius_jitter: float = RADIUS_JITTER
    grid: float = 0.0
    looks: bool = False


FREE = World()
# The world of four frames to a latent: in a group of four frames a slow object crosses two latent cells, the width of a
# token of the transformer, and a fast one four. Every latent of an object is one of a few patterns, moved by whole
# tokens.
GRID = World(pace=4 / 3, speed_jitter=0.0, radius_jitter=0.0, grid=8.0, looks=True)


@dataclass(frozen=True)
class Layout:
    """What a caption never says: start positions, phases and jitter, one row per clip. All in world units."""

    start_BK2: torch.Tensor  # x, y in [0, 32)
    phase_BK: torch.Tensor  # of the bounce, in [0, 1)
    radius_BK: torch.Tensor  # jitter added to the nominal radius
    speed_BK: torch.Tensor  # factor on the nominal speed
    texture_B2: torch.Tensor  # offset of the background pattern
    look_B3: torch.Tensor | None = None  # how soft, pale and flickering, in [0, 1]; None: sharp, vivid and steady


def random_layout(scenes: list[Scene], rngs: list[torch.Generator], slots: int = 1, world: World = FREE) -> Layout:
    """Layouts of B clips, one generator per clip (a clip does not depend on its batch).

    A clip's look is drawn last.

    Without a grid, most objects start where they stay inside the picture for INSIDE_FRAMES frames, as far as their path
    is short enough; the share SEAM_SHARE starts anywhere, so that objects which leave on one side and come in on the
    other are part of the world.
    """
    u = torch.stack([torch.rand(slots * 6 + 2, generator=rng) for rng in rngs])
    per_slot = u[:, : slots * 6].reshape(len(rngs), slots, 6)
    speed_BK = world.pace * (1 + (per_slot[..., 4] * 2 - 1) * world.speed_jitter)
    radius_BK = (per_slot[..., 3] * 2 - 1) * world.radius_jitter
    motion = _motion_rows(scenes, slots) * speed_BK[..., None]
    look_B3 = _looks(torch.stack([torch.rand(3, generator=rng) for rng in rngs])) if world.looks else None
    if world.grid:
        return replace(_on_grid(motion, u, per_slot, speed_BK, radius_BK, world.grid), look_B3=look_B3)
    nominal = torch.tensor([_radii(scene, slots) for scene in scenes])
    travel = motion[..., :2] * (INSIDE_FRAMES - 1)
    margin = (nominal + radius_BK)[..., None] + motion[..., 2:].abs() * BOUNCE_PERIOD / 4
    low = margin - travel.clamp(max=0)
    high = WORLD - margin - travel.clamp(min=0)
    middle = (low + high) / 2
    low, high = torch.minimum(low, middle), torch.maximum(high, middle)
    inside = low + per_slot[..., :2] * (high - low)
    anywhere = per_slot[..., 5:] < SEAM_SHARE
    return Layout(
        start_BK2=torch.where(anywhere, per_slot[..., :2] * WORLD, inside),
        phase_BK=per_slot[..., 2],
        radius_BK=radius_BK,
        speed_BK=speed_BK,
        texture_B2=u[:, slots * 6 :] * TEXTURE_PERIOD,
        look_B3=look_B3,
    )


def _looks(u_B3: torch.Tensor) -> torch.Tensor:
    """(B, 3) zeros and ones: in or out of focus, vivid or pale, steady or flickering. Sharp clips flicker more often:
    quality of pictures and of motion do not come together.
    """
    soft_B, pale_B = u_B3[:, 0] < 0.5, u_B3[:, 1] < 0.5
    return torch.stack((soft_B, pale_B, u_B3[:, 2] < torch.where(soft_B, RARELY, 1 - RARELY)), 1).float()


def _radii(scene: Scene, slots: int) -> list[float]:
    """Nominal radius of every object; empty slots repeat the last one's."""
    last = len(scene.objects) - 1
    return [RADIUS[str(scene.objects[min(slot, last)].size)] for slot in range(slots)]


def _on_grid(
    motion_BK4: torch.Tensor,
    u: torch.Tensor,
    per_slot: torch.Tensor,
    speed_BK: torch.Tensor,
    radius_BK: torch.Tensor,
    grid: float,
) -> Layout:
    """Starts on the grid, bounces that turn on it at the first frame, textures in phase with it."""
    amplitude_BK2 = motion_BK4[..., 2:].abs() * BOUNCE_PERIOD / 4
    return Layout(
        start_BK2=(per_slot[..., :2] * (WORLD / grid)).floor() * grid + amplitude_BK2,
        phase_BK=(per_slot[..., 2] * 2).floor() / 2,
        radius_BK=radius_BK,
        speed_BK=speed_BK,
        texture_B2=(u[:, -2:] * (TEXTURE_PERIOD / grid)).floor() * grid,
    )


def _motion_row(motion: Motion) -> tuple[float, float, float, float]:
    """(velocity x, velocity y, bounce axis speed x, y) of a complete motion, in pixels per frame."""
    if motion.kind == "still":
        return 0.0, 0.0, 0.0, 0.0
    speed = SPEED[str(motion.speed)]
    x, y = (DIRECTION if motion.kind == "move" else AXIS)[str(motion.way)]
    return (x * speed, y * speed, 0.0, 0.0) if motion.kind == "move" else (0.0, 0.0, x * speed, y * speed)


def _motion_rows(scenes: list[Scene], slots: int) -> torch.Tensor:
    """(B, K, 4) `_motion_row` of every object, zeros in empty slots."""
    still, rows = Motion("still"), []
    for scene in scenes:
        moving = [_motion_row(shown.motion or still) for shown in scene.objects[:slots]]
        rows.append(moving + [(0.0,) * 4] * (slots - len(moving)))
    return torch.tensor(rows)


def centers(scenes: list[Scene], layout: Layout, times: torch.Tensor) -> torch.Tensor:
    """Object centres (B, K, N, 2) in world units (not wrapped) at `times` (N,), measured in frames."""
    motion = _motion_rows(scenes, layout.start_BK2.shape[1]) * layout.speed_BK[..., None]
    cycle = torch.remainder(times / BOUNCE_PERIOD + layout.phase_BK[..., None], 1.0)
    there_and_back = BOUNCE_PERIOD / 4 * (1 - (cycle * 4 - 2).abs())  # triangle wave, slope +-1 per frame
    return (
        layout.start_BK2[:, :, None]
        + motion[:, :, None, :2] * times[:, None]
        + motion[:, :, None, 2:] * there_and_back[..., None]
    )


def signed_distance(shape: str, x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Signed distance (negative inside) to a shape of nominal radius r centred at the origin; y points down. Pixels."""
    if shape == "circle":
        return torch.hypot(x, y) - r
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.88 * r
    if shape == "triangle":
        # apex (0, -r), base from (-0.95 r, 0.75 r) to (0.95 r, 0.75 r): the side's unit normal is (0.879, -0.477)
        return torch.maximum(0.879 * x.abs() - 0.477 * (y + r), y - 0.75 * r)
    arm, reach = 0.36 * r, 1.02 * r
    ax, ay = x.abs(), y.abs()
    return torch.minimum(torch.maximum(ax - arm, ay - reach), torch.maximum(ax - reach, ay - arm))


def coverage(shape_id: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Fraction of each pixel covered, in [0, 1]; the edge ramps over one pixel.

    `shape_id` indexes SHAPES and broadcasts.
    """
    out = torch.zeros_like(dx)
    for index, name in enumerate(SHAPES):
        rows = (shape_id == index).flatten().nonzero().flatten()
        if len(rows):
            out[rows] = (0.5 - signed_distance(name, dx[rows], dy[rows], r[rows])).clamp(0, 1)
    return out


def wrap(offset: torch.Tensor) -> torch.Tensor:
    """Shortest signed offset on the torus, in [-16, 16)."""
    return torch.remainder(offset + WORLD / 2, WORLD) - WORLD / 2


def render(
    scenes: list[Scene],
    layout: Layout,
    num_frames: int,
    size: int = 32,
    first_frame: int = 0,
    camera_BT2: torch.Tensor | None = None,
) -> torch.Tensor:
    """Render complete scenes.

    Args:
        scenes: B complete scenes (`grammar.complete_scene`).
        layout: positions and phases of the B clips.
        num_frames: T; frame t shows time `first_frame` + t, so a video can be rendered piece by piece.
        size: height and width in pixels.
        camera_BT2: where the camera is at every frame, in world units, on straight ways between; default: where the
            scenes' pans have brought it.

    Returns:
        float32 (B, T, 3, size, size) in [0, 1].
    """
    assert all(s.complete for s in scenes), "render takes complete scenes"
    batch, slots = layout.phase_BK.shape
    sub = (torch.arange(SUB_FRAMES) - (SUB_FRAMES - 1) / 2) * (SHUTTER / SUB_FRAMES)
    times = (first_frame + torch.arange(num_frames)[:, None] + sub).flatten()  # T*S
    axis = (torch.arange(size) + 0.5) * (WORLD / size)
    px, py = axis[None, None, :], axis[None, :, None]
    camera = _panned(scenes, times) if camera_BT2 is None else _on_path(camera_BT2, times - first_frame)
    frames = _background(scenes, layout, camera, axis)
    center = centers(scenes, layout, times) - camera[:, None]
    for k in range(slots):
        present = [k < len(s.objects) for s in scenes]
        specs = [s.objects[min(k, len(s.objects) - 1)] for s in scenes]
        radius = torch.tensor([RADIUS[str(o.size)] for o in specs]) + layout.radius_BK[:, k]
        shape_id = torch.tensor([SHAPES.index(str(o.shape)) for o in specs])
        color = torch.tensor([RGB[str(o.color)] for o in specs])
        dx = wrap(px - center[:, k, :, 0, None, None]).expand(-1, -1, size, -1)
        dy = wrap(py - center[:, k, :, 1, None, None]).expand(-1, -1, -1, size)
        alpha = (
            coverage(shape_id, dx, dy, radius[:, None, None, None]) * torch.tensor(present).float()[:, None, None, None]
        )
        frames = torch.lerp(frames, color[:, None, :, None, None], alpha[:, :, None])
    frames = frames.reshape(batch, num_frames, SUB_FRAMES, 3, size, size).mean(2)
    return frames if layout.look_B3 is None else _seen(frames, layout.look_B3, first_frame)


def _seen(frames: torch.Tensor, look_B3: torch.Tensor, first_frame: int) -> torch.Tensor:
    """Clips (B, T, 3, H, W) through cameras of unlike quality: out of focus, pale, with a flicker of every other
    frame.
    """
    soft_B, pale_B, flicker_B = look_B3.unbind(1)
    spectrum = torch.fft.rfft2(frames)  # the picture goes round, so a blur is a product
    rows = torch.fft.fftfreq(frames.shape[-2])[:, None] * (frames.shape[-2] / WORLD)
    columns = torch.fft.rfftfreq(frames.shape[-1]) * (frames.shape[-1] / WORLD)
    square = 2 * (math.pi * SOFTEST) ** 2 * (rows**2 + columns**2)
    kept = torch.exp(-square * soft_B.square()[:, None, None])
    frames = torch.fft.irfft2(spectrum * kept[:, None, None], s=frames.shape[-2:])
    frames = torch.lerp(frames, frames.mean(2, keepdim=True), PALEST * pale_B[:, None, None, None, None])
    sign_T = 1 - 2 * ((first_frame + torch.arange(frames.shape[1])) % 2)
    return (frames + FLICKER * (flicker_B[:, None] * sign_T)[..., None, None, None]).clamp(0, 1)


def _panned(scenes: list[Scene], times: torch.Tensor) -> torch.Tensor:
    """(B, N, 2) where the cameras of scenes are at these times (N,)."""
    pan = torch.tensor([DIRECTION[s.pan] if s.pan else (0.0, 0.0) for s in scenes]) * PAN_SPEED
    return pan[:, None] * times[:, None]


def _on_path(camera_BT2: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """(B, N, 2) where cameras are at times (N,) in frames, before the first frame and behind the last as beside it."""
    last = camera_BT2.shape[1] - 1
    if not last:
        return camera_BT2.expand(-1, len(times), -1)
    begin = times.floor().clamp(0, last - 1).long()
    step = camera_BT2[:, begin + 1] - camera_BT2[:, begin]
    return camera_BT2[:, begin] + (times - begin)[:, None] * step


def _background(scenes: list[Scene], layout: Layout, camera_BN2: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    """(B, T*S, 3, H, W) gray background, plain, striped (vertical bars) or checkered."""
    gray = torch.tensor([GRAY[str(s.background)] for s in scenes])[:, None, None, None]
    striped = torch.tensor([s.texture == "striped" for s in scenes])[:, None, None, None]
    checkered = torch.tensor([s.texture == "checkered" for s in scenes])[:, None, None, None]
    moved = layout.texture_B2[:, None] + camera_BN2
    wave_x = _square_wave(axis + moved[..., :1])[:, :, None, :]
    wave_y = _square_wave(axis + moved[..., 1:])[:, :, :, None]
    pattern = torch.where(
        checkered, wave_x * wave_y, torch.where(striped, wave_x.expand(-1, -1, axis.numel(), -1), 0.0)
    )
    pattern = pattern.expand(-1, -1, axis.numel(), -1)
    return (gray + TEXTURE_DEPTH * pattern).clamp(0, 1)[:, :, None].expand(-1, -1, 3, -1, -1)


def _square_wave(position: torch.Tensor) -> torch.Tensor:
    """Anti-aliased square wave in [-1, 1] with period TEXTURE_PERIOD pixels."""
    cycle = torch.remainder(position / TEXTURE_PERIOD, 1.0)
    to_edge = torch.minimum((cycle - 0.5).abs(), torch.minimum(cycle, 1 - cycle)) * TEXTURE_PERIOD
    return torch.where(cycle < 0.5, 1.0, -1.0) * (2 * to_edge).clamp(max=1.0)


assert tuple(GRAY) == BACKGROUNDS

"""The oracle of the embedded world: measures attributes and qualities of one-object clips from pixels alone.

It is the judge of evaluation, so it shares no formula with the training rewards (only the low-level matte of
`segment`). What each quality does not see, by construction:
  sharpness    blur along one axis only: it looks like motion blur, which a frozen frame keeps; the better axis counts.
  smoothness   a clip in which nothing moves is smooth; shuffling still clips therefore changes nothing.
  dynamics     the order of frames: it is the spread of the places the object visits, so shuffling does not raise it.
  flicker      is also change, so strong flicker lowers smoothness and, through the object's colour, identity.
  motion       is relative to the screen: a panning camera moves the object.
  motion, way, speed (labels) are necessarily wrong after freezing or shuffling: the motion is gone.
Dimensions: B clip, T frame, C colour, K template, H, W pixels. Lengths in world units (32 = the torus), times in
frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from astro_cli.core.stats import concatenated
from astro_cli.shapes.grammar import AXES, BACKGROUNDS, COLORS, DIRECTIONS, SHAPES, SIZES, SPEEDS, TEXTURES, Scene
from astro_cli.shapes.pattern import Pattern, fit_pattern
from astro_cli.shapes.render import GRAY, RGB, SPEED, WORLD, wrap
from astro_cli.shapes.segment import (
    ObjectMask,
    lowpass,
    lowpass_filter,
    noise_sigma,
    segment,
    shift_to_origin,
    steps,
    to_gray,
)
from astro_cli.shapes.templates import Bank, bank, correlate, correlate_moving, transfer

KINDS = ("still", "move", "bounce")
WAYS = (*DIRECTIONS, *AXES)
UNDEFINED = -1  # index of `way` and `speed` where the clip is still
QUALITIES = ("sharpness", "cleanliness", "smoothness", "flicker", "identity", "dynamics", "presence")
ATTRIBUTES = ("color", "size", "shape", "motion", "speed", "background", "texture")
CHUNK_FRAMES = 1152  # measured at once, of 128 clips of 9 frames; bounds memory at about 0.3 GiB for frames of 32 x 32

# --- decision levels: midpoints between what the renderer can produce, its jitter included
STILL_SPEED = 0.65  # the slowest motion is 1.35 per frame; tracking under noise of sigma 0.08 wanders by 0.2
FAST_SPEED = 2.2  # between the fastest "slowly" (1.65) and the slowest "fast" (2.7)
BOUNCE_NET = 0.6  # |net| / path: 1 for a straight motion, 0 for a full bounce
TEXTURE_LEVEL = 0.3  # of the nominal amplitude; a blur of sigma 1.2 leaves 0.41 of the checks
SOFTNESS_SHAPE = 0.01  # correlation; between shapes of one size it differs by about 0.03
# --- quality scales: where a score has fallen to 1/e, unless said otherwise
DETAIL_BAND = (3.5, 9.5)  # cycles per world: above the object's bulk, below where noise and pixel phase dominate
CRISP_THIRD = 0.18  # third harmonic over first of a crisp pattern, at its least favourable pixel phase
NOISE_SCALE = 0.08  # sigma of noise
FLICKER_SCALE = 0.04  # RMS change per frame of a colour that should stay
COLOR_SCALE = 0.15  # RMS departure from the clip's own colour
FIT_SCALE = 0.08  # loss of template correlation when a frame shows another shape or size than the clip
# world units; low-passed until a fast object (3 per frame) moves by about one blur radius, so motion is differentiable
GRAY_SIGMA = 2.0
TURNS, TURN_FRAMES = 2, 9  # a bounce turns twice in 9 frames; that many triples are forgiven a reversal
SMOOTH_RATIO = (
    0.25  # jerk over change of the renderer's own motion: fast thin objects and bounces that turn between two frames
)
STEADY_FLOOR = 1e-6  # gray^2; what changes less than 0.001 gray is no motion
NOISE_SLACK = (
    0.5  # of the noise power: how uncertain its subtraction is, over the few independent patches of a low-passed frame
)
DYNAMICS_SCALE = (
    2.0  # world units of mean distance between two visited places (slow bounce 2.2, slow move 5, fast move 9)
)
DYNAMICS_WINDOW = 9  # frames; keeps the score from growing with a clip's length
# Presence is full at about 3/4 of the palest colour, half the smallest area, a rough shape.
FULL_CHROMA, FULL_AREA, FULL_FIT = (0.35, 25.0, 0.85)


@dataclass(frozen=True)
class Measurement:
    """What B clips show.

    Attributes are indices (B,) into the grammar's tuples, qualities floats (B,) in [0, 1], higher better.
    """

    color: torch.Tensor  # COLORS
    size: torch.Tensor  # SIZES
    shape: torch.Tensor  # SHAPES
    kind: torch.Tensor  # KINDS
    way: torch.Tensor  # WAYS, or UNDEFINED
    speed: torch.Tensor  # SPEEDS, or UNDEFINED
    background: torch.Tensor  # BACKGROUNDS
    texture: torch.Tensor  # TEXTURES

    color_soft: torch.Tensor  # (B, 6) cosine of the hue with each colour's
    shape_soft: torch.Tensor  # (B, 4) probabilities over SHAPES
    speed_px: torch.Tensor  # median speed, world units per frame
    rgb_B3: torch.Tensor  # mean colour of the object
    gray: torch.Tensor  # mean level of the background
    centers_BT2: torch.Tensor  # x, y in [0, 32), where the renderer would put the object

    sharpness: torch.Tensor
    cleanliness: torch.Tensor
    smoothness: torch.Tensor
    flicker: torch.Tensor  # high = steady
    identity: torch.Tensor
    dynamics: torch.Tensor
    presence: torch.Tensor


@torch.no_grad()
def measure(frames_BTCHW: torch.Tensor, pace: float = 1.0) -> Measurement:
    """Measure clips.

    Args:
        frames_BTCHW: float (B, T, 3, S, S) in [0, 1], S >= 32 (below, textures alias); a single frame is a still clip.
        pace: of the world's speeds (`render.World`).
    """
    size = frames_BTCHW.shape[-1]
    assert frames_BTCHW.shape[2:] == (3, size, size), f"expected (B, T, 3, S, S), found {tuple(frames_BTCHW.shape)}"
    clips = max(1, CHUNK_FRAMES // frames_BTCHW.shape[1])
    parts = [_measure_chunk(chunk.float().cpu(), pace) for chunk in frames_BTCHW.split(clips)]
    return Measurement(**concatenated([vars(part) for part in parts]))


def _measure_chunk(frames_BTCHW: torch.Tensor, pace: float) -> Measurement:
    seg = segment(frames_BTCHW)
    pattern = fit_pattern(frames_BTCHW, seg)
    templates = bank(frames_BTCHW.shape[-1])
    sigma_B = noise_sigma(frames_BTCHW.flatten(1, 2)).mean(1)
    rgb_BT3, spread_BT = _object_color(frames_BTCHW, seg, pattern)
    kind, way, speed, speed_px = _motion(seg, pace)
    matte_BTHW = shift_to_origin(seg.alpha_BTHW, seg.center_BT2)
    matte_BHW = matte_BTHW.mean(1)
    score_BK = correlate_moving(matte_BHW, _velocity(way, speed_px), templates)
    fit_B, best_B = score_BK.max(1)
    shape_soft = _best_per_group(score_BK, templates.shape_K, len(SHAPES)).div(SOFTNESS_SHAPE).softmax(1)
    color_soft = _hue_cosine(seg)
    gray = pattern.level_BT3.mean((1, 2))
    presence = _presence(seg, fit_B)
    return Measurement(
        color=color_soft.argmax(1),
        size=templates.size_K[best_B],
        shape=templates.shape_K[best_B],
        kind=kind,
        way=way,
        speed=speed,
        background=(gray[:, None] - torch.tensor(list(GRAY.values()))).abs().argmin(1),
        texture=_texture(pattern),
        color_soft=color_soft,
        shape_soft=shape_soft,
        speed_px=speed_px,
        rgb_B3=rgb_BT3.mean(1),
        gray=gray,
        centers_BT2=torch.remainder(seg.center_BT2 - templates.offset_K2[best_B][:, None], WORLD),
        sharpness=_sharpness(matte_BHW, templates.crisp_KP[best_B], pattern),
        cleanliness=torch.exp(-sigma_B / NOISE_SCALE),
        smoothness=_smoothness(to_gray(frames_BTCHW)),
        flicker=_flicker(rgb_BT3, spread_BT, pattern, sigma_B),
        identity=_identity(matte_BTHW, best_B, rgb_BT3, spread_BT, sigma_B, templates),
        dynamics=_dynamics(seg.center_BT2) * presence,  # nothing that moves is no motion
        presence=presence,
    )


# -----------------------------------------------------------------------------------------------------------------
# attributes


def _object_color(frames_BTCHW: torch.Tensor, seg: ObjectMask, pattern: Pattern) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares colour of the object (B, T, 3) in p = (1 - a) background + a colour, and its standard error per
    unit of noise.
    """
    alpha = seg.alpha_BTHW * (seg.smooth_BTHW > 0.5)  # the core: there the matte's own noise is small beside it
    over_BTCHW = frames_BTCHW - (1 - alpha)[:, :, None] * pattern.image_BTCHW
    power_BT = alpha.square().sum((-2, -1)).clamp(min=1.0)
    rgb_BT3 = torch.einsum("btchw,bthw->btc", over_BTCHW, alpha) / power_BT[..., None]
    return rgb_BT3, power_BT.rsqrt()


def _hue_cosine(seg: ObjectMask) -> torch.Tensor:
    """(B, 6) cosine of the clip's chroma with each palette colour's."""
    palette = torch.tensor([RGB[name] for name in COLORS])
    palette = torch.nn.functional.normalize(palette - palette.mean(1, keepdim=True), dim=1)
    chroma_B3 = (seg.hue_BT3 * (seg.chroma_BT * seg.area_BT)[..., None]).sum(1)
    return torch.nn.functional.normalize(chroma_B3, dim=1) @ palette.T


def _texture(pattern: Pattern) -> torch.Tensor:
    """Index into TEXTURES: plain unless bars or checks stand out."""
    amplitude = torch.stack([pattern.bars_BT.mean(1), pattern.checks_BT.mean(1)], 1)
    return torch.where(amplitude.amax(1) > TEXTURE_LEVEL, 1 + amplitude.argmax(1), 0)


def _motion(seg: ObjectMask, pace: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(kind, way, speed class, speed): from the median step along the axis of the longer path, and net against path."""
    step_BN2 = steps(seg.center_BT2)
    if step_BN2.shape[1] == 0:
        step_BN2 = torch.zeros(len(step_BN2), 1, 2)
    path_B2 = step_BN2.abs().sum(1)
    axis_B = path_B2.argmax(1)  # 0 = x
    along_BN = step_BN2.gather(2, axis_B[:, None, None].expand(-1, step_BN2.shape[1], 1))[..., 0]
    net_B, path_B = along_BN.sum(1), along_BN.abs().sum(1)
    speed_px = along_BN.abs().median(1).values  # the median is not moved by the steps in which a bounce turns
    bounces = net_B.abs() < BOUNCE_NET * path_B
    still = speed_px < STILL_SPEED
    kind = torch.where(still, KINDS.index("still"), torch.where(bounces, KINDS.index("bounce"), KINDS.index("move")))
    direction = torch.where(axis_B == 0, (net_B > 0).long(), 2 + (net_B > 0).long())  # left right | up down
    way = torch.where(still, UNDEFINED, torch.where(bounces, len(DIRECTIONS) + axis_B, direction))
    speed = torch.where(still, UNDEFINED, (speed_px > pace * FAST_SPEED).long())
    return kind, way, speed, speed_px


def _velocity(way: torch.Tensor, speed_px: torch.Tensor) -> torch.Tensor:
    """(B, 2) speed along the axis of motion; motion blur does not depend on its sign."""
    horizontal = torch.tensor([name in ("left", "right", "horizontally") for name in WAYS])[way.clamp(min=0)]
    moving = (way != UNDEFINED) * speed_px.clamp(max=2 * max(SPEED.values()))
    return torch.stack([moving * horizontal, moving * ~horizontal], 1)


def _best_per_group(score_BK: torch.Tensor, group_K: torch.Tensor, groups: int) -> torch.Tensor:
    return torch.stack([score_BK[:, group_K == g].amax(1) for g in range(groups)], 1)


# ------------------------------------------------------------------------------------------------------------------
# qualities


def _sharpness(matte_BHW: torch.Tensor, crisp_BP: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Contrast of fine detail relative to a crisp render: of the object, averaged with the pattern's where there is
    one.
    """
    edges = transfer(matte_BHW, crisp_BP, DETAIL_BAND).clamp(0, 1)
    bars = (pattern.third_BT.mean(1) / CRISP_THIRD).clamp(0, 1)
    return torch.where(_texture(pattern) > 0, (edges + bars) / 2, edges)


def _smoothness(gray_BTHW: torch.Tensor) -> torch.Tensor:
    """1 - jerk / change of the low-passed gray clip, jerk being a third of the squared second, change the squared first
    difference.

    Frames independent of each other give E|second|^2 = 6 var and E|first|^2 = 2 var, so jerk / change = 1; constant
    velocity tends to 0. A reversal has |second|^2 = 4 |first|^2, forgiven as often as a bounce turns; a cut exceeds
    that and counts. White noise is measured and its share taken off both, so a noisy clip is not called jerky.
    """
    if gray_BTHW.shape[1] < 3:
        return torch.ones(len(gray_BTHW))
    soft = lowpass(gray_BTHW, GRAY_SIGMA)
    first_BN = (soft[:, 1:] - soft[:, :-1]).square().mean((-2, -1))
    second_BN = (soft[:, 2:] - 2 * soft[:, 1:-1] + soft[:, :-2]).square().mean((-2, -1))
    gain = lowpass_filter(gray_BTHW.shape[-1], GRAY_SIGMA).square()
    left_share = (gain.sum() * 2 - gain[:, 0].sum() - gain[:, -1].sum()) / gray_BTHW.shape[
        -1
    ] ** 2  # white noise that passes
    noise_B = noise_sigma(gray_BTHW).square().mean(1) * left_share
    turns = min(second_BN.shape[1], TURNS * math.ceil(gray_BTHW.shape[1] / TURN_FRAMES))
    worst_BK = second_BN.topk(turns, dim=1).values
    forgiven_B = worst_BK.minimum(4 * first_BN.median(1).values[:, None]).sum(1)
    second_B = (second_BN.sum(1) - forgiven_B) / max(1, second_BN.shape[1] - turns)
    jerk_B = (second_B / 3 - 2 * noise_B).clamp(min=0)
    change_B = (first_BN.mean(1) - 2 * noise_B).clamp(min=0)
    ratio_B = jerk_B / (change_B + NOISE_SLACK * noise_B + STEADY_FLOOR)
    return 1 - ((ratio_B - SMOOTH_RATIO) / (1 - SMOOTH_RATIO)).clamp(0, 1)


def _flicker(rgb_BT3: torch.Tensor, spread_BT: torch.Tensor, pattern: Pattern, sigma_B: torch.Tensor) -> torch.Tensor:
    """Frame-to-frame steadiness of the object's colour, the background's level and the strength of its pattern."""
    if rgb_BT3.shape[1] < 2:
        return torch.ones(len(rgb_BT3))
    spread_bg_BT = pattern.weight_BTHW.sum((-2, -1)).clamp(min=1.0).rsqrt()
    noise_B = sigma_B.square() * 2 * torch.stack([spread_BT.square().mean(1), spread_bg_BT.square().mean(1)], 1).sum(1)
    change_B = sum(x.diff(dim=1).square().mean((1, 2)) for x in (rgb_BT3, pattern.level_BT3))
    excess_B = (change_B / 2 - noise_B / 2).clamp(min=0)
    return torch.exp(-excess_B.sqrt() / FLICKER_SCALE)


def _identity(
    matte_BTHW: torch.Tensor,
    best_B: torch.Tensor,
    rgb_BT3: torch.Tensor,
    spread_BT: torch.Tensor,
    sigma_B: torch.Tensor,
    templates: Bank,
) -> torch.Tensor:
    """Every frame shows the clip's shape and size (no other template fits it much better) in the clip's colour."""
    score_BTK = correlate(matte_BTHW, templates)
    of_clip_BT = score_BTK.gather(2, best_B[:, None, None].expand(-1, score_BTK.shape[1], 1))[..., 0]
    top_BT = score_BTK.amax(2).clamp(min=0.1)
    loss_B = (1 - of_clip_BT / top_BT).mean(1)
    spread_B = (rgb_BT3 - rgb_BT3.mean(1, keepdim=True)).square().mean((1, 2))
    noise_B = sigma_B.square() * spread_BT.square().mean(1)
    return torch.exp(-loss_B / FIT_SCALE - (spread_B - noise_B).clamp(min=0).sqrt() / COLOR_SCALE)


def _dynamics(center_BT2: torch.Tensor) -> torch.Tensor:
    """Mean distance on the torus between the places the object visits within a window, saturating; independent of their
    order.
    """
    window = min(center_BT2.shape[1], DYNAMICS_WINDOW)
    if window < 2:
        return torch.zeros(len(center_BT2))
    places = center_BT2.unfold(1, window, max(1, window - 1)).transpose(-1, -2)  # B, windows, frames, 2
    distance = wrap(places[:, :, :, None] - places[:, :, None]).norm(dim=-1).sum((-2, -1)) / (window * (window - 1))
    return 1 - torch.exp(-distance.mean(1) / DYNAMICS_SCALE)


def _presence(seg: ObjectMask, fit_B: torch.Tensor) -> torch.Tensor:
    """A coloured patch in every frame that is large enough and shaped like an object."""
    visible_BT = (seg.chroma_BT / FULL_CHROMA).clamp(0, 1) * (seg.area_BT / FULL_AREA).clamp(0, 1)
    return visible_BT.mean(1) * (fit_B / FULL_FIT).clamp(0, 1) ** 2


# ------------------------------------------------------------------------------------------------------------------
# agreement


def agreement(measurement: Measurement, scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Per attribute a float (B,): 1 where the clip shows what the scene's first object and background state, else 0,
    NaN where the scene leaves the attribute out. `motion` is kind and, if stated, direction or axis."""
    assert len(measurement.color) == len(scenes), f"{len(measurement.color)} clips, {len(scenes)} scenes"
    objects = [scene.objects[0] for scene in scenes]
    motions = [spec.motion for spec in objects]
    kind_B = _equal(measurement.kind, KINDS, [m and m.kind for m in motions])
    way_B = _equal(measurement.way, WAYS, [m and m.way for m in motions])
    return {
        "color": _equal(measurement.color, COLORS, [o.color for o in objects]),
        "size": _equal(measurement.size, SIZES, [o.size for o in objects]),
        "shape": _equal(measurement.shape, SHAPES, [o.shape for o in objects]),
        "motion": torch.where(way_B.isnan(), kind_B, kind_B * way_B),
        "speed": _equal(measurement.speed, SPEEDS, [m and m.speed for m in motions]),
        "background": _equal(measurement.background, BACKGROUNDS, [s.background for s in scenes]),
        "texture": _equal(measurement.texture, TEXTURES, [s.texture for s in scenes]),
    }


def _equal(measured_B: torch.Tensor, names: tuple[str, ...], stated: list[str | None]) -> torch.Tensor:
    wanted_B = torch.tensor([names.index(name) if name else UNDEFINED - 1 for name in stated])
    return torch.where(wanted_B < UNDEFINED, float("nan"), (measured_B == wanted_B).float())

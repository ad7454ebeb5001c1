"""The training rewards of the embedded world: visual quality, motion quality, text alignment. Simple, smooth, hackable
proxies.

They take the place of HPSv3 and VideoAlign in the papers, and like those they can be gamed: VQ is highest for a static
crisp picture, MQ ignores what moves, TA ignores quality. The judge is `shapes.oracle`, which these never call.
Dimensions: B clip, T frame, N frames or steps, C colour, K template, H, W pixels. Lengths in world units (32 = the
torus).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from astro_cli.shapes.grammar import SHAPES, TEXTURES, Motion, Scene, parse
from astro_cli.shapes.render import AXIS, DIRECTION, GRAY, RADIUS, RGB, SPEED, TEXTURE_DEPTH, TEXTURE_PERIOD, WORLD
from astro_cli.shapes.segment import (
    MIN_CHROMA,
    ObjectMask,
    background_weight,
    lowpass,
    noise_sigma,
    segment,
    shift_to_origin,
    steps,
    to_gray,
)
from astro_cli.shapes.templates import bank, correlate

EPS = 1e-8

# --- visual quality
BEST_FRACTION = 0.3  # Astrolabe section 3.4: the best 30 % of frames, so that transient motion blur is not punished
REBLUR_SIGMA = 1.0  # world units; a crisp edge loses most of its gradient energy to it, a soft one little
# share of gradient energy that the crispest renders lose (median 0.67; 0.63 at fast motion, 0.37 blurred by 1.2)
CRISP_LOSS = 0.75
EDGE_FLOOR = (
    0.05  # gradient energy of a picture without edges (the palest object's outline has 0.2): a blank frame is not sharp
)
FULL_CHROMA = 0.8  # about the palette's most saturated colour
FULL_CONTRAST = 0.6  # RGB distance between object and background at which contrast has gone 1 - 1/e of the way
CLEAN_SIGMA = 0.06  # noise at which the clean term is 1/e
VQ_WEIGHTS = {"sharp": 0.4, "saturated": 0.15, "contrast": 0.15, "clean": 0.3}  # ours

# --- motion quality
COARSE_SIGMA = 2.0  # world units; makes fast motion (3 per frame) differentiable
GRADIENT_FLOOR = 0.02  # gray per world unit; what is paler than this does not count as moving
# speed at which the amount of motion has gone 1 - 1/e of the way: any motion will do, how coherent it is decides
SLOW = 0.25
STEADY_FLOOR = 1e-6  # gray^2

# --- text alignment: widths of the Gaussian falls
COLOR_WIDTH = 0.25  # RGB distance
GRAY_WIDTH = 0.15
SIZE_WIDTH = 0.25  # of log radius; small and large are 0.53 apart
SPEED_WIDTH = 0.35  # of log speed; slowly and fast are 0.69 apart
STILL_WIDTH = 0.5  # world units per frame
AREA_FACTOR = {
    "circle": math.pi,
    "square": 3.10,
    "triangle": 1.66,
    "cross": 2.42,
    None: 2.5,
}  # area over radius^2; None: their mean
SHAPE_SOFTNESS = 0.02  # correlation; a small circle and a small square are 0.02 to 0.03 apart
PLAIN_LEVEL = 0.35  # of the nominal texture amplitude: what a plain background must stay below
DRIFT_FLOOR = 0.3  # world units per frame; keeps the direction of no motion at 1/2


def top_fraction_mean(scores_BT: Tensor, fraction: float) -> Tensor:
    """Mean (B,) of the best ceil(fraction * T) frames."""
    count = max(1, math.ceil(fraction * scores_BT.shape[1] - 1e-9))  # 0.3 * 10 is 3, not 4
    return scores_BT.topk(count, dim=1).values.mean(1)


class VisualQuality:
    """How good single frames look. Blind to time and prompt; motion blur costs sharpness, so a still crisp picture
    scores best.
    """

    key = "vq"
    num_frames_min = 1

    @torch.no_grad()
    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        frames_BTCHW = frames_BTCHW.float()
        seg = segment(frames_BTCHW)
        object_BT3, ground_BT3 = _mean_colors(frames_BTCHW, seg)
        seen_BT = (seg.chroma_BT / MIN_CHROMA).clamp(0, 1)  # without an object there is nothing to contrast
        terms = {
            "sharp": (_acutance(seg.alpha_BTHW * seg.chroma_BT[..., None, None]) + _acutance(frames_BTCHW.mean(2))) / 2,
            "saturated": (seg.chroma_BT / FULL_CHROMA).clamp(0, 1),
            "contrast": seen_BT * (1 - torch.exp(-(object_BT3 - ground_BT3).norm(dim=-1) / FULL_CONTRAST)),
            "clean": torch.exp(-noise_sigma(to_gray(frames_BTCHW)) / CLEAN_SIGMA),
        }
        scores_BT = torch.stack([VQ_WEIGHTS[name] * term for name, term in terms.items()]).sum(0)
        return top_fraction_mean(scores_BT, BEST_FRACTION)


def _acutance(images_BTHW: Tensor) -> Tensor:
    """Share (B, T) of gradient energy that blurring again removes, relative to a crisp render's: high for sharp edges.

    The reference-free blur measure of Crete et al. 2007, with energies in place of absolute differences: an energy does
    not depend on where an edge falls between pixels.
    """
    fine, coarse = (_gradient_energy(images) for images in (images_BTHW, lowpass(images_BTHW, REBLUR_SIGMA)))
    return ((fine - coarse) / (fine + EDGE_FLOOR) / CRISP_LOSS).clamp(0, 1) ** 2  # squared: motion blur should be felt


def _gradient_energy(images_BTHW: Tensor) -> Tensor:
    across_BT, down_BT = ((images_BTHW - images_BTHW.roll(1, dim)).square().sum((-2, -1)) for dim in (-1, -2))
    return across_BT + down_BT


def _mean_colors(frames_BTCHW: Tensor, seg: ObjectMask) -> tuple[Tensor, Tensor]:
    """Mean colour (B, T, 3) of the object's core and of the background."""
    core_BTHW = seg.alpha_BTHW.clamp(0, 1).pow(4)
    return _weighted_mean(frames_BTCHW, core_BTHW), _weighted_mean(frames_BTCHW, background_weight(seg))


def _weighted_mean(frames_BTCHW: Tensor, weight_BTHW: Tensor) -> Tensor:
    total_BT = weight_BTHW.sum((-2, -1)).clamp(min=1.0)
    return torch.einsum("btchw,bthw->btc", frames_BTCHW, weight_BTHW) / total_BT[..., None]


class MotionQuality:
    """How coherent the motion is, and that there is some. It sees gray frames only, so object, colour, direction and
    prompt do not matter.
    """

    key = "mq"
    num_frames_min = 3

    @torch.no_grad()
    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        gray_BTHW = lowpass(to_gray(frames_BTCHW.float()), COARSE_SIGMA)
        return _coherence(gray_BTHW) * _amount(gray_BTHW)


def _coherence(gray_BTHW: Tensor) -> Tensor:
    """1 where change accumulates as in motion, 0 where frames are as different at one step as at two (shuffled, noisy,
    flickering).

    E|x_{t+2} - x_t|^2 over E|x_{t+1} - x_t|^2 is 4 for constant velocity, 1 for frames in random order.
    """
    one_B = (gray_BTHW[:, 1:] - gray_BTHW[:, :-1]).square().mean((1, 2, 3))
    two_B = (gray_BTHW[:, 2:] - gray_BTHW[:, :-2]).square().mean((1, 2, 3))
    return ((two_B - one_B) / (3 * one_B + STEADY_FLOOR)).clamp(0, 1)


def _amount(gray_BTHW: Tensor) -> Tensor:
    """Saturating speed (B,), from brightness constancy |d gray / dt| = speed |grad gray| where the picture changes
    most.
    """
    change_BNHW = (gray_BTHW[:, 1:] - gray_BTHW[:, :-1]).square()
    middle = (gray_BTHW[:, 1:] + gray_BTHW[:, :-1]) / 2
    unit = 2 * WORLD / gray_BTHW.shape[-1]  # central differences, per world unit
    gradient_BNHW = sum(((middle.roll(-1, dim) - middle.roll(1, dim)) / unit).square() for dim in (-1, -2))
    moving = (change_BNHW * change_BNHW).sum((1, 2, 3))
    spatial = (change_BNHW * (gradient_BNHW + GRADIENT_FLOOR**2)).sum((1, 2, 3))
    return 1 - torch.exp(-(moving / spatial.clamp(min=1e-20)).sqrt() / SLOW)


class TextAlignment:
    """Mean soft agreement of the attributes that the prompt states with the frames; those it leaves out do not
    count. `pace` is that of the world's speeds (`shapes.render.World`)."""

    key = "ta"
    num_frames_min = 2

    def __init__(self, pace: float = 1.0) -> None:
        self.pace = pace

    @torch.no_grad()
    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        frames_BTCHW = frames_BTCHW.float()
        evidence = Evidence(frames_BTCHW, self.pace)
        rows = [_agreements(evidence, row, scene_of(prompt)) for row, prompt in enumerate(prompts)]
        return torch.tensor([sum(row) / max(1, len(row)) for row in rows], device=frames_BTCHW.device)


@functools.lru_cache(maxsize=4096)
def scene_of(prompt: str) -> Scene:
    """The scene of a prompt, with what it leaves out."""
    return parse(prompt)


class Evidence:
    """What the frames show, measured for the whole batch at once and kept as python numbers for the few sums per
    prompt.
    """

    def __init__(self, frames_BTCHW: Tensor, pace: float = 1.0) -> None:
        seg = segment(frames_BTCHW)
        rgb_BT3, ground_BT3 = _mean_colors(frames_BTCHW, seg)
        step_BN2 = steps(seg.center_BT2) / pace
        self.rgb = rgb_BT3.mean(1).tolist()
        self.gray = ground_BT3.mean((1, 2)).tolist()
        self.area = seg.area_BT.mean(1).clamp(min=1.0).tolist()
        self.net = step_BN2.mean(1).tolist()
        self.path = step_BN2.abs().mean(1).tolist()
        self.shape = _shape_odds(seg).tolist()
        self.texture = _texture_odds(frames_BTCHW, seg).tolist()


def _shape_odds(seg: ObjectMask) -> Tensor:
    """(B, 4): softmax of the best correlation per shape of the centred mean matte."""
    matte_BHW = shift_to_origin(seg.alpha_BTHW, seg.center_BT2).mean(1).cpu()  # the bank lives there
    templates = bank(matte_BHW.shape[-1])
    score_BK = correlate(matte_BHW, templates)
    best = torch.stack([score_BK[:, templates.shape_K == index].amax(1) for index in range(len(SHAPES))], 1)
    return (best / SHAPE_SOFTNESS).softmax(1)


def _texture_odds(frames_BTCHW: Tensor, seg: ObjectMask) -> Tensor:
    """(B, 3) shares of plain, striped, checkered: energies at the texture's frequency, the object's place filled with
    the mean.
    """
    size = frames_BTCHW.shape[-1]
    weight = background_weight(seg)
    gray = frames_BTCHW.mean(2)
    total = weight.sum((-2, -1), keepdim=True).clamp(min=1.0)
    flat = ((gray - (gray * weight).sum((-2, -1), keepdim=True) / total) * weight).flatten(2)
    angle = (torch.arange(size, device=gray.device) + 0.5) * (WORLD / size) * (2 * math.pi / TEXTURE_PERIOD)
    wave = torch.stack([angle.cos(), angle.sin()])
    bars = wave[:, None, :].expand(-1, size, -1).flatten(1)
    checks = (wave[:, None, None, :] * wave[None, :, :, None]).reshape(4, -1)
    first = TEXTURE_DEPTH * 4 / math.pi
    striped, checkered = (
        (flat @ waves.T * gain / total[..., 0]).square().sum(-1).mean(1) / amplitude**2
        for waves, gain, amplitude in ((bars, 2, first), (checks, 4, first * 4 / math.pi))
    )
    energy = torch.stack([torch.full_like(striped, PLAIN_LEVEL**2), striped, checkered], 1)
    return energy / energy.sum(1, keepdim=True)


def _agreements(seen: Evidence, row: int, scene: Scene) -> list[float]:
    """Agreement in [0, 1] of every attribute the scene states, of its first object and of the background."""
    spec, agreements = scene.objects[0], []
    if spec.color:
        agreements.append(_bell(math.dist(seen.rgb[row], RGB[spec.color]), COLOR_WIDTH))
    if spec.size:
        radius = math.sqrt(seen.area[row] / AREA_FACTOR[spec.shape])
        agreements.append(_bell(math.log(radius / RADIUS[spec.size]), SIZE_WIDTH))
    if spec.shape:
        agreements.append(seen.shape[row][SHAPES.index(spec.shape)])
    if spec.motion:
        agreements += _motion_agreements(seen.net[row], seen.path[row], spec.motion)
    if scene.background:
        agreements.append(_bell(seen.gray[row] - GRAY[scene.background], GRAY_WIDTH))
    if scene.texture:
        agreements.append(seen.texture[row][TEXTURES.index(scene.texture)])
    return agreements


def _motion_agreements(net: list[float], path: list[float], motion: Motion) -> list[float]:
    """Agreement of the kind and way of motion and, if stated, of its speed; `net` and `path` per frame along x and
    y.
    """
    length = math.hypot(*path)
    if motion.kind == "still":
        return [math.exp(-length / STILL_WIDTH)]
    if motion.kind == "move":
        ahead = sum(n * d for n, d in zip(net, DIRECTION[motion.way], strict=True)) if motion.way else math.hypot(*net)
        agreements = [(1 + ahead / (length + DRIFT_FLOOR)) / 2]
    else:
        along = sum(p * d for p, d in zip(path, AXIS[motion.way], strict=True)) if motion.way else length
        agreements = [along / (length + DRIFT_FLOOR) * (1 - math.hypot(*net) / (length + DRIFT_FLOOR))]
    if motion.speed:
        agreements.append(_bell(math.log((length + EPS) / SPEED[motion.speed]), SPEED_WIDTH))
    return agreements


def _bell(distance: float, width: float) -> float:
    return math.exp(-0.5 * (distance / width) ** 2)


REWARDS: dict[str, type] = {reward.key: reward for reward in (VisualQuality, MotionQuality, TextAlignment)}

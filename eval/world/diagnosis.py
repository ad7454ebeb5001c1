"""Whether a base of the embedded world follows its prompts, in a minute: what its loss knows of each attribute, and
what its videos show.

The gap of an attribute at a noise level is the velocity loss with that attribute of the caption flipped minus the loss
with the caption right, on the same clips and noise: 0 where the network does not use the word, however good its loss
is. Motion is judged from outside the oracle: the path of the centre of saturation, unwrapped on the torus, its axis and
sign against the prompt.
Dimensions: B clip, T frame, N step between frames, C colour, H, W pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from astro_cli.core.flow import add_noise, timestep_of, velocity_target
from astro_cli.core.rng import sample_noise, stream
from astro_cli.core.stats import concatenated
from astro_cli.generate.arm import Arm
from astro_cli.shapes.grammar import AXES, COLORS, SHAPES, Motion, Scene, caption, complete_scene, parse, random_scene
from astro_cli.shapes.oracle import agreement, measure
from astro_cli.shapes.render import WORLD, random_layout, render, wrap
from eval.world import shapes
from eval.world.oracle_scores import noise_seeds

JUDGED = ("color", "shape", "motion", "speed")  # attributes that a table shows
SIGMAS = (0.5, 0.7, 0.8, 0.9, 0.95)
FLIPPED = {"left": "right", "right": "left", "up": "down", "down": "up"}
ACROSS = {"left": "up", "right": "down", "up": "right", "down": "left"}
BORDER_SLACK = 1.5  # how far a step across a block's border may exceed the mean step inside blocks
RESTING = 0.65  # world units per frame; the slowest motion is 1.35
RETURNS = 0.6  # |net| / path below which a path is a bounce
Progress = Callable[[int, int], None]


# ------------------------------------------------------------------------------------------------------------------
# gaps


def _direction(scene: Scene) -> Scene:
    return _with_motion(scene, way=FLIPPED[_way(scene)])


def _axis(scene: Scene) -> Scene:
    return _with_motion(scene, way=ACROSS[_way(scene)])


def _speed(scene: Scene) -> Scene:
    return _with_motion(scene, speed="fast" if _motion(scene).speed == "slowly" else "slowly")


def _color(scene: Scene) -> Scene:
    return _with_object(scene, color=_next(COLORS, scene.objects[0].color))


def _shape(scene: Scene) -> Scene:
    return _with_object(scene, shape=_next(SHAPES, scene.objects[0].shape))


FLIPS: dict[str, Callable[[Scene], Scene]] = {
    "direction": _direction,
    "axis": _axis,
    "speed": _speed,
    "color": _color,
    "shape": _shape,
}


def _motion(scene: Scene) -> Motion:
    motion = scene.objects[0].motion
    assert motion is not None
    return motion


def _way(scene: Scene) -> str:
    way = _motion(scene).way
    assert way is not None
    return way


def _with_motion(scene: Scene, **changes: str) -> Scene:
    return _with_object(scene, motion=dataclasses.replace(_motion(scene), **changes))


def _with_object(scene: Scene, **changes: object) -> Scene:
    return dataclasses.replace(scene, objects=(dataclasses.replace(scene.objects[0], **changes),))  # type: ignore[arg-type]


def _next(values: tuple[str, ...], value: str | None) -> str:
    return values[(values.index(str(value)) + 1) % len(values)]


@dataclass(frozen=True)
class Gap:
    """At one noise level: the loss with the right caption, and per attribute how much a wrong word adds (mean, standard
    error over clips).
    """

    sigma: float
    loss: float
    added: dict[str, tuple[float, float]]


def moving_scenes(count: int) -> list[Scene]:
    """Complete scenes of steady moves, from a stream training never draws from."""
    scenes, index = [], 0
    while len(scenes) < count:
        rng = stream("world-diagnosis", index)
        scene = complete_scene(random_scene(rng), rng)
        index += 1
        if _motion(scene).kind == "move":
            scenes.append(scene)
    return scenes


@torch.no_grad()
def gaps(arm: Arm, count: int, progress: Progress) -> list[Gap]:
    """Gaps of a network that denoises whole clips at one noise level.

    The clips begin in the middle of a video, as the teacher's training clips do.
    """
    scenes, frames = moving_scenes(count), arm.card["video"]["frames"]
    rngs = [stream("world-diagnosis-layout", index) for index in range(count)]
    layouts = random_layout(scenes, rngs, world=arm.backbone.world)
    x0 = arm.backbone.encode(render(scenes, layouts, arm.backbone.num_frames(frames + 1)))[:, 1:]
    noise = sample_noise(tuple(x0.shape[1:]), list(range(count)), "world-diagnosis-noise")
    texts = {"right": arm.text([caption(scene) for scene in scenes])}
    for name, flip in FLIPS.items():
        texts[name] = arm.text([caption(flip(scene)) for scene in scenes])
    measured = []
    for index, sigma in enumerate(SIGMAS):
        sigma_BF = torch.full(x0.shape[:2], sigma)
        x_t, target = add_noise(x0, noise, sigma_BF), velocity_target(x0, noise)
        losses = {
            name: (arm.network(x_t, timestep_of(sigma_BF), text) - target).pow(2).flatten(1).mean(1)
            for name, text in texts.items()
        }
        right = losses.pop("right")
        added = {name: _mean_and_error(loss - right) for name, loss in losses.items()}
        measured.append(Gap(sigma, right.mean().item(), added))
        progress(index + 1, len(SIGMAS))
    return measured


def _mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


# ------------------------------------------------------------------------------------------------------------------
# videos


@dataclass(frozen=True)
class MotionShares:
    """What videos of one kind of motion show: shares of the prompts, and of the block borders that are crossed at the
    usual step (None: no moves).
    """

    kind: str
    prompts: int
    path: float  # motion by the path of saturation
    oracle: dict[str, float | None]  # color, shape, motion, speed; None: no prompt says it
    borders: float | None


def saturation_steps(frames_BTCHW: torch.Tensor) -> torch.Tensor:
    """(B, N, 2) displacements x, y of the centre of saturation from frame to frame, the short way round, in world
    units.
    """
    weight = (frames_BTCHW.amax(2) - frames_BTCHW.amin(2)).square()
    size = weight.shape[-1]
    angle = (torch.arange(size) + 0.5) * (2 * math.pi / size)
    wave = torch.complex(angle.cos(), angle.sin())
    centers = torch.stack([(weight.sum(2) + 0j) @ wave, (weight.sum(3) + 0j) @ wave], -1).angle() * (
        WORLD / (2 * math.pi)
    )
    return wrap(centers.diff(dim=1))


def follows(step_BN2: torch.Tensor, motions: list[Motion]) -> torch.Tensor:
    """(B,) whether each path is what the prompt says: rest, a move along its axis with its sign, or a bounce along its
    axis.
    """
    net, path = step_BN2.sum(1), step_BN2.abs().sum(1)
    axis = path.argmax(1)
    along = path.gather(1, axis[:, None])[:, 0]
    right = []
    for row, motion in enumerate(motions):
        resting = bool(step_BN2[row].abs().median(0).values.max() < RESTING)
        returns = bool(net[row, axis[row]].abs() < RETURNS * along[row])
        if motion.kind == "still":
            right.append(resting)
        elif motion.kind == "bounce":
            right.append(not resting and returns and AXES[int(axis[row])] == motion.way)
        else:
            sign = bool(net[row, axis[row]] > 0)
            way = (("left", "right"), ("up", "down"))[int(axis[row])][sign]
            right.append(not resting and not returns and way == motion.way)
    return torch.tensor(right)


def border_steps(step_BN2: torch.Tensor, borders: list[int]) -> torch.Tensor:
    """(B, borders) whether the step into frame `border` is at most BORDER_SLACK of the mean step inside blocks."""
    length_BN = step_BN2.norm(dim=-1)
    at = torch.tensor([border - 1 for border in borders], dtype=torch.long)
    inside = torch.ones(length_BN.shape[1], dtype=torch.bool)
    inside[at] = False
    return length_BN[:, at] <= BORDER_SLACK * length_BN[:, inside].mean(1, keepdim=True)


def _share(agreed: torch.Tensor) -> float | None:
    judged = agreed[~agreed.isnan()]
    return judged.mean().item() if len(judged) else None


@torch.no_grad()
def motion_shares(arm: Arm, count: int, frames: int, batch: int, progress: Progress) -> list[MotionShares]:
    """Generate `count` held-out prompts, `frames` latent frames each, and judge them per kind of motion and
    together.
    """
    prompts, seeds = shapes.prompt_set(count), noise_seeds(0, count)
    scenes = [parse(prompt) for prompt in prompts]
    steps, agreed = [], []
    for start in range(0, count, batch):
        rows = slice(start, start + batch)
        clips = arm.backbone.decode(arm.generate(prompts[rows], seeds[rows], frames))
        steps.append(saturation_steps(clips))
        agreed.append(agreement(measure(clips, arm.backbone.world.pace), scenes[rows]))
        progress(min(start + batch, count), count)
    step_BN2, motions = torch.cat(steps), [_motion(scene) for scene in scenes]
    right_B = follows(step_BN2, motions).float()
    judged = concatenated(agreed)
    oracle = {name: judged[name] for name in JUDGED}
    block = arm.card["video"]["block"]
    borders = [arm.backbone.num_frames(latents) for latents in range(block, frames, block)]
    crossed_BN = border_steps(step_BN2, borders).float()
    table = []
    for kind in ("still", "move", "bounce", "all"):
        rows = torch.tensor([kind in (motion.kind, "all") for motion in motions])
        if rows.any():
            moves = crossed_BN[rows].mean().item() if kind == "move" and borders else None
            means = {name: _share(values[rows]) for name, values in oracle.items()}
            table.append(MotionShares(kind, int(rows.sum()), right_B[rows].mean().item(), means, moves))
    return table

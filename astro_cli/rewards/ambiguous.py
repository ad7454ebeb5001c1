"""A text reward of the embedded world that is less to be trusted the more a prompt leaves open: what BPGO is for.

    R' = TA + m ( tau z(content) ) - penalty * #{ left-out attributes that are not the favourite }

m is the number of attributes that the prompt leaves out. z is a fixed standard normal number for what the clip shows
(colour, size, shape, background, texture), so the noise is repeatable and can be exploited, as an evaluator's bias can.
The favourite of an attribute is the head of the world's own prior. On a complete prompt R' is TA.
Source: ours, after TeleBoost (arXiv 2602.07595) section 3.3, "reward models often exhibit inconsistent confidence and
noise". Dimensions: B clip, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from astro_cli.core.rng import stream
from astro_cli.rewards.shapes import AREA_FACTOR, Evidence, TextAlignment, scene_of
from astro_cli.shapes.grammar import BACKGROUNDS, COLORS, SHAPES, SIZES, TEXTURES, Scene
from astro_cli.shapes.render import GRAY, RADIUS, RGB

NOISE = 0.04  # tau: with three attributes left out, the spread of TA within a group
PENALTY = 0.02
FAVOURITES = {"color": "red", "size": "large", "shape": "circle", "background": "gray", "texture": "plain"}


class AmbiguousAlignment:
    """TA with a bias that grows with the prompt's ambiguity."""

    key = "ta_noisy"
    num_frames_min = TextAlignment.num_frames_min

    def __init__(self, pace: float = 1.0) -> None:
        self.plain = TextAlignment(pace)

    @torch.no_grad()
    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        seen, plain_B = Evidence(frames_BTCHW.float()), self.plain.score(frames_BTCHW, prompts)
        bias = [_bias(content(seen, row), scene_of(prompt)) for row, prompt in enumerate(prompts)]
        return plain_B + torch.tensor(bias, device=plain_B.device)


def content(seen: Evidence, row: int) -> dict[str, str]:
    """What a clip shows, by attribute: the nearest word of the grammar."""
    shape = SHAPES[max(range(len(SHAPES)), key=lambda index: seen.shape[row][index])]
    radius = math.sqrt(seen.area[row] / AREA_FACTOR[shape])
    return {
        "color": min(COLORS, key=lambda word: math.dist(seen.rgb[row], RGB[word])),
        "size": min(SIZES, key=lambda word: abs(math.log(radius / RADIUS[word]))),
        "shape": shape,
        "background": min(BACKGROUNDS, key=lambda word: abs(seen.gray[row] - GRAY[word])),
        "texture": TEXTURES[max(range(len(TEXTURES)), key=lambda index: seen.texture[row][index])],
    }


def left_out(scene: Scene) -> list[str]:
    """Attributes that a prompt does not state, of those that `content` tells."""
    spec = scene.objects[0]
    stated = {
        "color": spec.color,
        "size": spec.size,
        "shape": spec.shape,
        "background": scene.background,
        "texture": scene.texture,
    }
    return [name for name, value in stated.items() if value is None]


def _bias(shown: dict[str, str], scene: Scene) -> float:
    free = left_out(scene)
    drawn = torch.randn((), generator=stream("evaluator", *shown.values())).item()
    return len(free) * NOISE * drawn - PENALTY * sum(shown[name] != FAVOURITES[name] for name in free)

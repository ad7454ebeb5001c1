"""The embedded world's untrustworthy text reward: exact on complete prompts, repeatable, wider the less they say."""

from __future__ import annotations

import torch

from astro_cli.core.rng import stream
from astro_cli.rewards.ambiguous import NOISE, PENALTY, AmbiguousAlignment, content, left_out
from astro_cli.rewards.base import EMBEDDED_KEYS
from astro_cli.rewards.embedded import embedded_reward
from astro_cli.rewards.shapes import Evidence, TextAlignment, scene_of
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import random_layout, render

WHOLE = "a large red circle moves right slowly over a gray plain background"
BLUE = "a large blue circle moves right slowly over a gray plain background"
OPEN = "a thing moves right slowly"


def frames(prompt: str, seed: int = 0) -> torch.Tensor:
    scenes = [parse(prompt)]
    return render(scenes, random_layout(scenes, [stream(seed, "layout")]), 5)


def score(prompt: str, shown: torch.Tensor) -> float:
    return AmbiguousAlignment().score(shown, [prompt]).item()


def test_every_embedded_reward_has_its_key():
    assert [embedded_reward(key).key for key in EMBEDDED_KEYS] == [*EMBEDDED_KEYS]


def test_a_complete_prompt_gets_plain_text_alignment():
    shown = frames(WHOLE)
    assert left_out(scene_of(WHOLE)) == []
    assert score(WHOLE, shown) == TextAlignment().score(shown, [WHOLE]).item()


def test_content_is_what_was_rendered():
    expected = {"color": "blue", "size": "large", "shape": "circle", "background": "gray", "texture": "plain"}
    assert content(Evidence(frames(BLUE)), 0) == expected


def test_the_bias_is_the_same_for_the_same_content_and_grows_with_what_is_left_out():
    """R' - TA = m tau z - penalty x attributes that are not the favourite; another layout shows the same."""
    half = "a circle moves right slowly over a gray plain background"  # colour and size left out
    assert [left_out(scene_of(prompt)) for prompt in (half, OPEN)] == [
        ["color", "size"],
        ["color", "size", "shape", "background", "texture"],
    ]

    def bias(prompt: str, seed: int = 0) -> float:
        shown = frames(BLUE, seed)
        return score(prompt, shown) - TextAlignment().score(shown, [prompt]).item()

    assert abs(bias(OPEN, 1) - bias(OPEN, 0)) < 1e-6
    z = (bias(half) + PENALTY) / (2 * NOISE)  # blue is not the favourite colour, large is the favourite size
    assert abs(bias(OPEN) - (5 * NOISE * z - PENALTY)) < 1e-5
    assert abs(z) > 1e-3

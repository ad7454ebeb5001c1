"""Rendered clips of a prompt. A helper of tests."""

from __future__ import annotations

import torch

from astro_cli.core.rng import stream
from astro_cli.shapes.grammar import complete_scene, parse
from astro_cli.shapes.render import random_layout, render


def clip(prompt: str, frames: int, seed: int = 0) -> torch.Tensor:
    """(1, T, 3, 32, 32) in [0, 1]."""
    scene = complete_scene(parse(prompt), stream(seed, "scene"))
    return render([scene], random_layout([scene], [stream(seed, "layout")]), frames)

"""First frames of the embedded world's prompts: the scene that a prompt describes, rendered and encoded.

Dimensions: B video, F latent frame, C channel, H, W latent rows and columns.
"""

from __future__ import annotations

import torch

from astro_cli.config.errors import StreamError
from astro_cli.core.rng import stream
from astro_cli.models.backbone import Backbone
from astro_cli.shapes.grammar import complete_scene, parse
from astro_cli.shapes.render import random_layout, render

HINT = "give the first frame: --image FILE, or image= of the Python API"


def first_frames(backbone: Backbone, prompts: list[str], seeds: list[int], size: tuple[int, int]) -> torch.Tensor:
    """(B, 1, C, H, W): a first frame per prompt and seed; what the prompt leaves out is drawn.

    Args:
        size: height and width in pixels.

    Raises:
        StreamError: another backbone than the embedded world's, or a picture that is no square.
        PromptError: a prompt that is none of its grammar.
    """
    if backbone.name != "shapes":
        raise StreamError("stream", "given", "missing: this student makes each frame from the one before", hint=HINT)
    height, width = size
    if height != width:
        what = f"found {height}x{width}, the world is a square and is rendered as one"
        raise StreamError("--size", f"{height}x{width}", what, hint=HINT)
    scenes = [complete_scene(parse(prompt), stream(seed, "scene")) for prompt, seed in zip(prompts, seeds, strict=True)]
    slots = max(len(scene.objects) for scene in scenes)
    layout = random_layout(scenes, [stream(seed, "layout") for seed in seeds], slots, world=backbone.world)
    return backbone.encode(render(scenes, layout, 1, height))

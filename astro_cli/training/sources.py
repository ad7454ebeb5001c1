"""Where batches come from: rendered frames, encoded clips, bare prompts.

Every draw is a function of (seed, stage, step, role, row), never of a loader's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from astro_cli.config.errors import RecipeError
from astro_cli.core.rng import stream, stream_seed
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch
from astro_cli.shapes.grammar import Scene, caption, complete_scene, random_scene
from astro_cli.shapes.render import random_layout, render

ENCODE_BATCH = 128  # clips encoded at once


class Source(Protocol):
    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        """`size` samples for one role's update in a step."""
        ...


def sample_seeds(seed: int, use: str, step: int, role: str, size: int) -> list[int]:
    return [stream_seed(seed, use, step, role, row) for row in range(size)]


def draw_scene(seed: int, drop: float) -> tuple[Scene, str]:
    """A complete scene and its caption, which leaves out what the scene's prior then decided."""
    rng = stream(seed, "scene")
    told = random_scene(rng, drop)
    return complete_scene(told, rng), caption(told)


def render_scenes(scenes: list[Scene], seeds: list[int], frames: int) -> torch.Tensor:
    return render(scenes, random_layout(scenes, [stream(seed, "layout") for seed in seeds]), frames)


@dataclass
class FrameSource:
    """Rendered clips of `frames` frames, for the codec."""

    seed: int
    frames: int = 1

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        scenes = [draw_scene(seed, 0.0)[0] for seed in seeds]
        return Batch(seeds, [""] * size, frames_BTCHW=render_scenes(scenes, seeds, self.frames), shared=stream_seed(self.seed, use, step, role))


class ClipSource:
    """Encoded clips with captions from a pool rendered once.

    Args:
        frames: latent frames of a clip.
        lead: latent frames of the video that are encoded before the clip and cut off, so that the clip begins in the middle of a video.
    """

    def __init__(
        self, seed: int, backbone: Backbone, frames: int, pool: int, drop: float, progress: Callable[[str, int, int], None], lead: int = 0
    ) -> None:
        self.seed, self.backbone = seed, backbone
        seeds = [stream_seed(seed, "pool", row) for row in range(pool)]
        drawn = [draw_scene(sample, drop) for sample in seeds]
        self.captions = [text for _, text in drawn]
        parts = []
        for start in range(0, pool, ENCODE_BATCH):
            rows = slice(start, start + ENCODE_BATCH)
            pictures = render_scenes([scene for scene, _ in drawn[rows]], seeds[rows], backbone.num_frames(lead + frames))
            parts.append(backbone.encode(pictures)[:, lead:])
            progress("rendering and encoding clips", min(start + ENCODE_BATCH, pool), pool)
        self.latents = torch.cat(parts)

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        rows = [seed % len(self.captions) for seed in seeds]
        prompts = [self.captions[row] for row in rows]
        text, shared = self.backbone.encode_text(prompts), stream_seed(self.seed, use, step, role)
        return Batch(seeds, prompts, text_BMD=text, latents_BFCHW=self.latents[rows], shared=shared)


class PromptSource:
    """Prompts from the world's grammar, or from a file with one prompt a line.

    A file's lines come in a new order every epoch, each once. No line comes twice in a (global) batch that is no larger than the file, also where an
    epoch ends within it.

    Args:
        every: cadence of the roles that do not ask in every step; their epochs count the steps in which they ask.
    """

    def __init__(
        self, seed: int, encode_text: Callable[[list[str]], torch.Tensor], drop: float, path: str | None, every: Mapping[str, int] | None = None
    ) -> None:
        self.seed, self.encode_text, self.drop = seed, encode_text, drop
        self.lines = read_prompts(Path(path)) if path is not None else None
        self.every = every or {}

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        if self.lines is None:
            prompts = [draw_scene(seed, self.drop)[1] for seed in seeds]
        else:
            turn = step // self.every.get(role, 1)
            prompts = [self.lines[line] for line in shuffled(len(self.lines), size, turn, self.seed, use, role)]
        return Batch(seeds, prompts, text_BMD=self.encode_text(prompts), shared=stream_seed(self.seed, use, step, role))


def shuffled(count: int, size: int, turn: int, *name: object) -> list[int]:
    """The `turn`-th batch of `size` of `count` lines, which are permuted anew every epoch in the stream `name`; a function of its arguments alone."""
    places = range(turn * size, (turn + 1) * size)
    orders = {epoch: _epoch_order(count, size, epoch, *name) for epoch in range(places[0] // count, places[-1] // count + 1)}
    return [orders[place // count][place % count] for place in places]


def _epoch_order(count: int, size: int, epoch: int, *name: object) -> list[int]:
    """A permutation of the lines in which those of the batch that the epoch before left open come last.

    It depends on the epochs before, back to the last one that ended with a batch.
    """
    cycle = size // math.gcd(count, size)  # epochs until one ends with a batch
    order: list[int] = []
    for number in range(epoch - epoch % cycle, epoch + 1):
        drawn = torch.randperm(count, generator=stream(*name, "lines", number)).tolist()
        begun = set(order[count - min(count, number * count % size) :])
        order = [line for line in drawn if line not in begun] + [line for line in drawn if line in begun]
    return order


def read_prompts(path: Path) -> list[str]:
    """Non-empty lines of a prompt file.

    Raises:
        RecipeError: missing or empty file.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(path, "prompts", f"cannot be read: {error}") from error
    if not lines:
        raise RecipeError(path, "prompts", "the file holds no prompt", hint="one prompt a line")
    return lines

"""Where batches come from: rendered frames, encoded clips, bare prompts.

Every draw is a function of (seed, stage, step, role, row), never of a loader's state.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """Single rendered frames, for the codec."""

    seed: int

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        scenes = [draw_scene(seed, 0.0)[0] for seed in seeds]
        return Batch(seeds, [""] * size, frames_BTCHW=render_scenes(scenes, seeds, 1), shared=stream_seed(self.seed, use, step, role))


class ClipSource:
    """Encoded clips with captions from a pool rendered once."""

    def __init__(self, seed: int, backbone: Backbone, frames: int, pool: int, drop: float, progress: Callable[[str, int, int], None]) -> None:
        self.seed, self.backbone = seed, backbone
        seeds = [stream_seed(seed, "pool", row) for row in range(pool)]
        drawn = [draw_scene(sample, drop) for sample in seeds]
        self.captions = [text for _, text in drawn]
        parts = []
        for start in range(0, pool, ENCODE_BATCH):
            rows = slice(start, start + ENCODE_BATCH)
            parts.append(backbone.encode(render_scenes([scene for scene, _ in drawn[rows]], seeds[rows], frames)))
            progress("rendering and encoding clips", min(start + ENCODE_BATCH, pool), pool)
        self.latents = torch.cat(parts)

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        rows = [seed % len(self.captions) for seed in seeds]
        prompts = [self.captions[row] for row in rows]
        text, shared = self.backbone.encode_text(prompts), stream_seed(self.seed, use, step, role)
        return Batch(seeds, prompts, text_BMD=text, latents_BFCHW=self.latents[rows], shared=shared)


class PromptSource:
    """Prompts from the world's grammar, or from a file with one prompt a line: each line once, in a random order, before any comes again."""

    def __init__(self, seed: int, encode_text: Callable[[list[str]], torch.Tensor], drop: float, path: str | None) -> None:
        self.seed, self.encode_text, self.drop = seed, encode_text, drop
        self.lines = read_prompts(Path(path)) if path is not None else None

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        prompts = [draw_scene(seed, self.drop)[1] for seed in seeds] if self.lines is None else self._lines(self.lines, use, step, role, size)
        return Batch(seeds, prompts, text_BMD=self.encode_text(prompts), shared=stream_seed(self.seed, use, step, role))

    def _lines(self, lines: list[str], use: str, step: int, role: str, size: int) -> list[str]:
        """Steps of one size walk through the file, shuffled anew each time it ends; the batch is the same on all processes, which share it out."""
        found: list[str] = []
        while len(found) < size:
            turn, place = divmod(step * size + len(found), len(lines))
            order = torch.randperm(len(lines), generator=stream(self.seed, use, role, "lines", turn)).tolist()
            found += [lines[row] for row in order[place : place + size - len(found)]]
        return found


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

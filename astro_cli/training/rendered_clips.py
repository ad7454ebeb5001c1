"""Encoded clips of the embedded world with captions, rendered once; also clips as a frame sink shows a long video."""

from __future__ import annotations

from collections.abc import Callable

import torch

from astro_cli.core.rng import stream, stream_seed
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch
from astro_cli.shapes.camera import path, random_moves
from astro_cli.training.sources import SeededSource, SourceContext, draw_scene, render_scenes, sample_seeds

ENCODE_BATCH = 128  # clips encoded at once


def clip_frames(seeds: list[int], frames: int, gap: int, block: int) -> torch.Tensor:
    """(B, F) which frames of a longer video each clip shows: after its first block it leaves out 0 to `gap`, in whole
    blocks.
    """
    choices = gap // block + 1
    left_out = [block * int(torch.randint(choices, (), generator=stream(seed, "gap"))) for seed in seeds]
    numbers_F = torch.arange(frames)
    return numbers_F + torch.tensor(left_out)[:, None] * (numbers_F >= block)


def taken(videos_BF: torch.Tensor, numbers_BF: torch.Tensor) -> torch.Tensor:
    """These frames of each video, (B, all frames, ...) to (B, F, ...)."""
    return videos_BF[torch.arange(len(videos_BF))[:, None], numbers_BF]


class ClipSource(SeededSource):
    """Encoded clips with captions from a pool rendered once.

    Args:
        frames: latent frames of a clip.
        lead: latent frames of the video that are encoded before the clip and cut off, so that the clip begins in the
            middle of a video.
        pan: chance that a clip's camera pans.
        gap: most frames left out after the first `block`, in whole blocks; 0 to so many are drawn for each clip.
        camera: whether it moves from latent to latent instead, which no caption says (`shapes.camera`).
    """

    @classmethod
    def make(cls, context: SourceContext) -> ClipSource:
        recipe, data = context.recipe, context.spec.data
        frames = data.frames or recipe.video.frames
        pool = (data.pool, data.drop, context.progress, data.lead, data.pan)
        gaps = {"gap": data.gap, "block": recipe.video.block}
        return cls(recipe.seed, context.backbone, frames, *pool, camera=recipe.video.camera, **gaps).of(context)

    def __init__(
        self,
        seed: int,
        backbone: Backbone,
        frames: int,
        pool: int,
        drop: float,
        progress: Callable[[str, int, int], None],
        lead: int = 0,
        pan: float = 0.0,
        *,
        camera: bool = False,
        gap: int = 0,
        block: int = 1,
    ) -> None:
        self.seed, self.backbone = seed, backbone
        seeds = [stream_seed(seed, "pool", row) for row in range(pool)]
        drawn = [draw_scene(sample, drop, pan) for sample in seeds]
        self.pool, self.scenes = seeds, [scene for scene, _ in drawn]
        self.captions = [text for _, text in drawn]
        rendered = lead + frames + gap
        self.numbers_PF = clip_frames(seeds, frames, gap, block)  # of each clip's frames, from the end of the lead
        self.learned_PF = (
            None
            if not gap
            else (self.numbers_PF[:, -1:] < frames)
            | (
                torch.arange(frames) // block != 1  # what comes after a gap cannot know its length
            )
        )
        moves = random_moves(seeds, rendered) if camera else None
        self.moves = None if moves is None else taken(moves[:, lead:], self.numbers_PF)
        parts = []
        for start in range(0, pool, ENCODE_BATCH):
            rows = slice(start, start + ENCODE_BATCH)
            way, count = None if moves is None else path(moves[rows]), backbone.num_frames(rendered)
            pictures = render_scenes(self.scenes[rows], seeds[rows], count, backbone.world, way)
            parts.append(taken(backbone.encode(pictures)[:, lead:], self.numbers_PF[rows]))
            progress("rendering and encoding clips", min(start + ENCODE_BATCH, pool), pool)
        self.latents = torch.cat(parts)

    def rows(self, seeds: list[int]) -> list[int]:
        """The clips of the pool that samples with these seeds are."""
        return [seed % len(self.captions) for seed in seeds]

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seeds = sample_seeds(self.seed, use, step, role, size)
        rows = self.rows(seeds)
        prompts = [self.captions[row] for row in rows]
        text, shared = self.backbone.encode_text(prompts), stream_seed(self.seed, use, step, role)
        moves = None if self.moves is None else self.moves[rows]
        learned = None if self.learned_PF is None else self.learned_PF[rows]
        clips = {"latents_BFCHW": self.latents[rows], "moves_BF2": moves, "learned_BF": learned}
        return Batch(seeds, prompts, text_BMD=text, shared=shared, **clips)

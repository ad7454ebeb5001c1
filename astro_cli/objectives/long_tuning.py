"""Streaming long tuning with DMD: LongLive's second stage. Every step of student and critic takes the next chunk of a
video that goes on.

    student   L = 1/2 mean over new frames || x - stopgrad(x - g) ||^2,   g = (f - r) / mean over the chunk |x - r|
    critic    L = mean over new frames || v_critic(x_t, t) - (eps - x) ||^2

Source: LongLive (arXiv 2509.22622), streaming long tuning; its released code.
Dimensions: B sample, F latent frame, C channel, H, W.

**Deviations**: as in `dmd` and `rollout.long_sequence`. The released critic goes on from the first stage's, which its
release does not hold for other codes to read.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from astro_cli.objectives import dmd
from astro_cli.objectives.base import Batch
from astro_cli.rollout.long_sequence import ChunkPlan
from astro_cli.rollout.switching import SwitchRule
from astro_cli.spec import Recipe, StageSpec


class Config(dmd.Config):
    """DMD's keys, and how long videos are cut into chunks of `video.frames`.

    Attributes:
        frames: of the longest video; as many chunks as fit are made.
        overlap: old frames in every chunk but the first.
        switch: what a change of prompt does to the cached past.
        event_only: on `shapes`, the chance that the second prompt names nothing but what changes.
    """

    frames: int = Field(gt=0)
    overlap: int = Field(gt=0)
    switch: SwitchRule = SwitchRule()
    event_only: float = Field(default=0.0, ge=0, le=1)

    def plan(self, chunk: int) -> ChunkPlan:
        return ChunkPlan(self.frames, chunk, self.overlap)


class Objective(dmd.Objective):
    source = "astro_cli.training.sequences:SequenceSource"
    persistent: ClassVar[bool] = True
    shards = False
    config: Config

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        super().check(config, recipe, stage, key)
        key, block, chunk = f"{key}.objective", recipe.video.block, recipe.video.frames
        if config.overlap % block or config.overlap >= chunk:
            what = f"expected a multiple of video.block ({block}) below video.frames ({chunk})"
            raise ValueError(f"{key}.overlap: found {config.overlap}, {what}")
        if config.frames < chunk + config.plan(chunk).new:
            least = chunk + config.plan(chunk).new
            what = f"expected at least {least}: a chunk for each of the two prompts"
            raise ValueError(f"{key}.frames: found {config.frames}, {what}")
        if recipe.cache.window is None:
            what = "missing, long tuning needs a window so that memory does not grow with the video"
            raise ValueError(f"cache.window: {what}")
        if config.sink_gradient:
            what = "found true, expected false: earlier chunks of a long video carry no gradients"
            raise ValueError(f"{key}.sink_gradient: {what}")
        if config.rollout_frames is not None:
            what = f"found {config.rollout_frames}, expected none: a chunk has video.frames ({chunk})"
            raise ValueError(f"{key}.rollout_frames: {what}")

    def rollout(self, batch: Batch, *, gradient: bool) -> torch.Tensor:
        """The next chunk (B, F, C, H, W) of the batch's videos."""
        (sequence,) = batch.sequences
        with self.run_context.section("rollout"), self.run_context.roles.use("student"):
            return sequence.next_chunk(self.exit_step(batch), gradient=gradient).window_BFCHW

    def trained(self, batch: Batch) -> slice:
        (sequence,) = batch.sequences
        assert sequence.chunk is not None
        return sequence.chunk.fresh

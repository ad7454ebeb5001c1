"""Batches of clips with their frames, latents and optical flow: rendered with the exact flow, or a user's videos."""

from __future__ import annotations

from astro_cli.core.rng import stream_seed
from astro_cli.objectives.base import Batch
from astro_cli.shapes.flow import exact_flow
from astro_cli.shapes.render import render
from astro_cli.spec import Recipe, StageSpec
from astro_cli.training.clip_source import EncodedClips
from astro_cli.training.sources import SeededSource, SourceContext, draw_scene, layout_of, sample_seeds


class FlowClips(SeededSource):
    """Clips that are rendered when they are wanted, each from its own seed."""

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        EncodedClips.check(recipe, stage, key)

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        EncodedClips.check_files(stage)

    @classmethod
    def make(cls, context: SourceContext) -> SeededSource:
        if context.recipe.backbone == "shapes":
            return cls().of(context)
        from astro_cli.training.video_flows import VideoFlowClips  # with PyAV and diffusers, which few runs need

        return VideoFlowClips.make(context)

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        recipe, data, backbone = self.context.recipe, self.context.spec.data, self.context.backbone
        seeds = sample_seeds(recipe.seed, use, step, role, size)
        drawn = [draw_scene(seed, data.drop, data.pan) for seed in seeds]
        scenes, count = [scene for scene, _ in drawn], backbone.num_frames(data.frames or recipe.video.frames)
        layout, side = layout_of(scenes, seeds, backbone.world), recipe.video.height * backbone.cell
        frames = render(scenes, layout, count, side)
        return Batch(
            seeds,
            [text for _, text in drawn],
            latents_BFCHW=backbone.encode(frames),
            frames_BTCHW=frames,
            flow_BN2HW=exact_flow(scenes, layout, count, side),
            shared=stream_seed(recipe.seed, use, step, role),
        )

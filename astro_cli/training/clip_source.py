"""Encoded clips with captions: rendered ones of the embedded world, or the user's videos on Wan."""

from __future__ import annotations

from astro_cli.spec import Recipe, StageSpec
from astro_cli.training.rendered_clips import ClipSource
from astro_cli.training.sources import SourceContext, refuse_pans, refuse_samples


class EncodedClips(ClipSource):
    """The source of objectives that learn from clips."""

    @classmethod
    def make(cls, context: SourceContext) -> ClipSource:
        if context.spec.data.clips is None:
            return ClipSource.make(context)
        from astro_cli.training.video_clips import VideoClipSource  # with PyAV and diffusers, which few runs need

        return VideoClipSource.make(context)

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        if stage.data.clips is not None:
            from astro_cli.media.clips import list_clips  # with PyAV, which few runs need

            list_clips(stage.data.clips)

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        refuse_samples(stage, key)
        clips, on_wan = stage.data.clips, recipe.backbone == "wan"
        if on_wan and clips is None:
            what = f"missing, {stage.kind} on Wan needs a folder of videos with prompts, or a manifest.jsonl"
            raise ValueError(f"{key}.data.clips: {what}")
        if on_wan:
            refuse_pans(stage, key)
        if on_wan and stage.data.gap:
            what = f"found {stage.data.gap}, expected 0: clips from files are whole"
            raise ValueError(f"{key}.data.gap: {what}")
        if recipe.video.camera and stage.data.pan:
            what = f"found {stage.data.pan}, expected 0: the camera's moves are given, and no caption says them"
            raise ValueError(f"{key}.data.pan: {what}")
        if clips is not None and not on_wan:
            what = f"found {clips!r}, expected none: the embedded world renders its own clips"
            raise ValueError(f"{key}.data.clips: {what}")

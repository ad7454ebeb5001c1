"""Batches of a user's video clips with their optical flow, which RAFT estimates once and the disk keeps.

The flows are `flows/<network>/<form>/<video>.safetensors` beside the latents (`training.video_clips`): `network` is a
hash of RAFT's weights. They are averages over latent cells, in pixels of the frames. Frames are decoded for each batch.
Dimensions: T frame, N = T - 1 pairs of frames, 2 x and y displacement, H, W pixels, h, w latent cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from astro_cli.config.errors import RecipeError
from astro_cli.core.rng import stream_seed
from astro_cli.media.clips import ClipForm, clip_frames, list_clips
from astro_cli.media.decode import VideoError
from astro_cli.models import hashes, raft
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch
from astro_cli.training.distributed import own_rows
from astro_cli.training.sources import SeededSource, SourceContext, sample_seeds
from astro_cli.training.video_clips import (
    LatentCache,
    codec_hash,
    form_name,
    left_out,
    read_checked,
    shared_work,
    whole,
    write_checked,
)
from astro_cli.zoo.raft_files import find_raft

FLOWS = "flows"  # the folder's name, and the tensor's in its file
MODEL, UPDATES = "raft_large", 12  # as the evaluation's


@dataclass(frozen=True)
class FlowCache:
    """The files of flows that one network estimated of clips taken in one form, averaged over cells."""

    network: Path
    form: ClipForm
    cell: int

    def path(self, video: Path) -> Path:
        name = f"{form_name(self.form)}-cells{self.cell}"
        folder = hashes.cache_file().parent / FLOWS / hashes.digest(self.network) / name
        return folder / f"{hashes.remembered(video)}.safetensors"

    def estimate(self, video: Path, estimator: raft.Raft) -> Path:
        """The file of a video's flows (N, 2, h, w), made if it is not there whole.

        Raises:
            VideoError: the video has no such frames.
        """
        path = self.path(video)
        if not whole(path, FLOWS):
            frames = clip_frames(video, self.form)
            flows = [torch.from_numpy(estimator.flow(*frames[at : at + 2])) for at in range(len(frames) - 1)]
            write_checked(path, FLOWS, functional.avg_pool2d(torch.stack(flows), self.cell))
        return path


@dataclass(frozen=True)
class FlowClip:
    """A usable clip: its video and prompt, and the files made of it."""

    video: Path
    prompt: str
    latents: Path
    flows: Path


class VideoFlowClips(SeededSource):
    """The clips of a folder or manifest; videos that are damaged or too short are named and left out.

    Raises:
        RecipeError: no clip can be used.
        CheckpointError: no weights of RAFT.
    """

    def __init__(self, context: SourceContext) -> None:
        recipe, data, backbone = context.recipe, context.spec.data, context.backbone
        assert data.clips is not None, "checked with the recipe"
        frames, cell = backbone.num_frames(data.frames or recipe.video.frames), backbone.cell
        self.form = ClipForm(frames, recipe.video.fps, recipe.video.height * cell, recipe.video.width * cell)
        network = find_raft()
        latents, flows = LatentCache(codec_hash(recipe.base.codec), self.form), FlowCache(network, self.form, cell)
        estimator, clips = raft.load(network, MODEL, UPDATES), list_clips(data.clips)
        videos = list(dict.fromkeys(clip.path for clip in clips))
        work = lambda video: _prepared(video, backbone, estimator, latents, flows)  # noqa: E731
        everyone = shared_work(videos, work, context.accelerator, context.progress)
        faults = [(video, fault) for video, (_, fault) in everyone.items() if fault]
        if faults and context.accelerator.is_main_process:
            context.warn(left_out(faults, len(videos)))
        self.clips = [
            FlowClip(clip.path, clip.prompt, *files) for clip in clips if (files := everyone[clip.path][0]) is not None
        ]
        if not self.clips:
            what = f"none of {len(videos)} videos can be used; {faults[0][0].name}: {faults[0][1]}"
            raise RecipeError(data.clips, "clips", what)
        self.of(context)

    @classmethod
    def make(cls, context: SourceContext) -> VideoFlowClips:
        return cls(context)

    def batches(self, step: int, role: str) -> list[Batch]:
        context = self.context
        seeds = sample_seeds(context.recipe.seed, context.stage, step, role, context.spec.batch)
        shared = stream_seed(context.recipe.seed, context.stage, step, role)
        return [self._batch(seeds[own_rows(context.accelerator, context.spec.batch)], shared)]

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        seed = self.context.recipe.seed
        return self._batch(sample_seeds(seed, use, step, role, size), stream_seed(seed, use, step, role))

    def _batch(self, seeds: list[int], shared: int) -> Batch:
        clips = [self.clips[seed % len(self.clips)] for seed in seeds]
        frames = [torch.from_numpy(clip_frames(clip.video, self.form)) for clip in clips]
        return Batch(
            seeds,
            [clip.prompt for clip in clips],
            latents_BFCHW=torch.stack([read_checked(clip.latents) for clip in clips]),
            frames_BTCHW=torch.stack(frames).permute(0, 1, 4, 2, 3).float() / 255,
            flow_BN2HW=torch.stack([read_checked(clip.flows, FLOWS) for clip in clips]),
            shared=shared,
        )


def _prepared(
    video: Path, backbone: Backbone, estimator: raft.Raft, latents: LatentCache, flows: FlowCache
) -> tuple[tuple[Path, Path] | None, str]:
    """The files of a video's latents and flows, or what is wrong with the video."""
    try:
        return (latents.encode(video, backbone), flows.estimate(video, estimator)), ""
    except VideoError as error:
        return None, error.what

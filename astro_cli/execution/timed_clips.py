"""Clips of a stage's length to time rewards on: renders on the embedded world, noise on Wan."""

from __future__ import annotations

from collections.abc import Callable

import torch

from astro_cli.core.rng import stream
from astro_cli.execution.reward_process import TimedWork
from astro_cli.execution.reward_units import rewards_alone
from astro_cli.models.backbone import load_backbone
from astro_cli.training.build import pick_device
from astro_cli.training.sources import draw_scene, render_scenes, sample_seeds

WAN_CELL = 8  # pixels along each side of a latent cell of Wan's VAE
WAN_FRAMES = 4  # frames of a latent frame, but for the first


def prepared(work: TimedWork) -> Callable[[], None]:
    """The rewards loaded and the clips made; a call scores all clips once, and waits for the device."""
    recipe, device = work.recipe, pick_device(work.recipe.runtime.device)
    experience = recipe.stages[work.stage].experience
    assert experience is not None, "checked by the planner"
    rewards = rewards_alone(recipe, list(work.keys), device, experience.scorers)
    latents = experience.clip or experience.frames or recipe.video.frames
    frames, prompts = _rendered(work, latents) if recipe.backbone == "shapes" else _noise(work, latents)
    frames = frames.to(device)

    @torch.no_grad()
    def score() -> None:
        for reward in rewards:
            reward.score(frames, prompts)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return score


def _rendered(work: TimedWork, latents: int) -> tuple[torch.Tensor, list[str]]:
    backbone = load_backbone("shapes", work.recipe.base.codec)
    seeds = sample_seeds(work.recipe.seed, "timed", 0, "reward", work.clips)
    drawn = [draw_scene(seed, 0.0) for seed in seeds]
    frames = render_scenes([scene for scene, _ in drawn], seeds, backbone.num_frames(latents), backbone.world)
    return frames, [prompt for _, prompt in drawn]


def _noise(work: TimedWork, latents: int) -> tuple[torch.Tensor, list[str]]:
    video = work.recipe.video
    size = (WAN_FRAMES * latents - (WAN_FRAMES - 1), 3, WAN_CELL * video.height, WAN_CELL * video.width)
    frames = torch.rand((work.clips, *size), generator=stream(work.recipe.seed, "timed"))
    return frames, ["a corgi runs on a beach"] * work.clips

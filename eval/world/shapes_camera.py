"""The camera suite of the embedded world: how well clips follow the moves that are asked for. Owns the protocol.

Held-out scenes of an object that stands still before a checkered background, each with moves of its own, one per latent
frame. The camera is measured twice: by the background's waves and by the object.
Source: AAPT (arXiv 2506.09350), supplement I: translational errors of estimated cameras.

**Deviations**: the paper estimates cameras with VGGSfM and has further measures of real videos. Here the world says
where the camera went.
Dimensions: B clip, F latent frame, 2 x and y.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.core.rng import stream
from astro_cli.generate.arm import Arm
from astro_cli.shapes.camera import STEP, WAYS, measured_steps, of_latents, random_moves
from astro_cli.shapes.grammar import Motion, caption, random_scene
from eval.world import shapes
from eval.world.oracle_scores import join_batches, noise_seeds
from eval.world.suites import Progress, Scores

NAME = "shapes-camera"
VERSION = 1
BATCH = 32
METRICS = ("camera_error", "camera_error_object", "camera_agreement")

num_frames = shapes.num_frames


def prompt_set(count: int) -> list[str]:
    """Held-out captions of objects that stand still before checkered backgrounds."""
    prompts = []
    for index in range(count):
        scene = random_scene(stream(NAME, VERSION, index))
        (spec,) = scene.objects
        prompts.append(caption(replace(scene, objects=(replace(spec, motion=Motion("still")),), texture="checkered")))
    return prompts


def protocol(arm: Arm) -> dict[str, Any]:
    return {"given_frames": 1, "moves": list(WAYS)}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Make a clip of every prompt under moves of its own and measure them.

    Raises:
        CheckpointError: a model without a camera.
    """
    if not arm.has_camera:
        hint = "train one: astro distill --recipe aapt_camera_shapes"
        raise CheckpointError(arm.path, "video.camera", f"found false, {NAME} scores models with a camera", hint=hint)
    seeds, frames, parts = noise_seeds(seed, len(prompts)), num_frames(arm), []
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        moves = random_moves(seeds[rows], frames)
        clips = arm.decoder().push(generated(arm, prompts[rows], seeds[rows], moves))
        parts.append(scores(clips, moves))
        progress(min(start + BATCH, len(prompts)), len(prompts))
    return join_batches(parts)


@torch.no_grad()
def generated(arm: Arm, prompts: list[str], seeds: list[int], moves_BF2: torch.Tensor) -> torch.Tensor:
    """Latents (B, F, C, H, W) of clips under these moves, from the rendered first frames."""
    frames = moves_BF2.shape[1]
    streamer = arm.streamer(prompts, seeds, frames, moves=moves_BF2)
    assert streamer.spec.given is not None
    return torch.cat([streamer.spec.given, *(streamer.next_block() for _ in range(frames - 1))], 1)


def scores(clips_BTCHW: torch.Tensor, moves_BF2: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B,) each: mean distance of commanded and measured moves per latent frame, in world units, by the background and
    by the object; share of the latents whose nearest possible move, by the background, is the commanded one.
    """
    commanded, measured = moves_BF2[:, 1:].cpu(), measured_steps(clips_BTCHW)
    background, of_object = of_latents(measured["background"]), of_latents(measured["object"])
    possible = torch.tensor(list(WAYS.values())) * STEP
    nearest = possible[torch.cdist(background, possible[None]).argmin(-1)]
    return {
        "camera_error": (background - commanded).norm(dim=-1).mean(1),
        "camera_error_object": (of_object - commanded).norm(dim=-1).mean(1),
        "camera_agreement": (nearest == commanded).all(-1).float().mean(1),
    }

"""The suite of optical flow of the embedded world: held-out renders through an arm's decoder, their flow by DIS against
the renderer's exact flow. Owns the protocol.

Latents get a little noise before they are decoded, as a diffusion model leaves them, the same for every arm at a seed.
DIS sees frames enlarged four times with a rim of what comes in on the other side; its flow is averaged back.
Source: TeleBoost (arXiv 2602.07595), Table 2, the simulated set.

**Deviations**: the paper generates videos from images and takes RAFT's flow of the real video as truth; here videos are
decoded from encoded renders, and the truth is exact. Its flow is RAFT's, here OpenCV's DIS, which needs no weights.
Dimensions: B clip, T frame, N pair of frames, 2 x and y displacement in pixels, H, W pixels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from astro_cli.config.errors import RecordError
from astro_cli.core.rng import sample_noise, stream
from astro_cli.generate.arm import Arm
from astro_cli.shapes.flow import exact_flow
from astro_cli.shapes.grammar import DIRECTIONS, caption, parse, random_scene
from astro_cli.shapes.render import random_layout, render
from eval.metrics.flow_dis import OPENCV, estimator
from eval.watchers.flow_errors import ErrorSums
from eval.watchers.flow_label import Estimate
from eval.world import shapes
from eval.world.oracle_scores import noise_seeds
from eval.world.suites import Progress, Scores

NAME = "shapes-flow"
VERSION = 1
BATCH = 16
NOISE = 0.2  # share of the latents' deviation: as the codec was trained
LARGER, RIM = 4, 8  # enlargement of frames, pixels around them
METRICS = ("epe", "over_1px", "over_3px", "f1_all")

num_frames = shapes.num_frames


def prompt_set(count: int) -> list[str]:
    """Captions of held-out scenes, every other with a panning camera."""
    prompts = []
    for index in range(count):
        scene = random_scene(stream(NAME, VERSION, index))
        way = f" while the camera pans {DIRECTIONS[index // 2 % len(DIRECTIONS)]}" if index % 2 else ""
        prompts.append(caption(scene) + way)
    return prompts


def protocol(arm: Arm) -> dict[str, Any]:
    return {"latent_noise": NOISE, "estimator": "DIS medium"}


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Decode a clip of every prompt and compare its flow with the exact one. One number per clip and metric."""
    seeds, scores = noise_seeds(seed, len(prompts)), {metric: list[float | None]() for metric in METRICS}
    frames, backbone, estimate = arm.backbone.num_frames(num_frames(arm)), arm.backbone, dis()
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        scenes = [parse(prompt) for prompt in prompts[rows]]
        layout = random_layout(scenes, [stream(each, "layout") for each in seeds[rows]], world=backbone.world)
        latents = backbone.encode(render(scenes, layout, frames))
        noise = sample_noise(tuple(latents.shape[1:]), seeds[rows], "latent_noise")
        decoded = backbone.decode(latents + NOISE * latents.std() * noise)
        for clip, exact in zip(decoded, exact_flow(scenes, layout, frames), strict=True):
            errors = flow_errors(clip, exact, estimate)
            for metric in METRICS:
                scores[metric].append(errors[metric])
        progress(min(start + BATCH, len(prompts)), len(prompts))
    return dict(scores)


def flow_errors(clip_TCHW: torch.Tensor, exact_N2HW: torch.Tensor, estimate: Estimate) -> dict[str, float]:
    """Errors of an estimator's flow over all pairs of frames."""
    sums = ErrorSums()
    pictures = larger(clip_TCHW)
    for index, exact in enumerate(exact_N2HW):
        flow = torch.from_numpy(estimate(pictures[index], pictures[index + 1])) / LARGER
        small = functional.avg_pool2d(flow, LARGER)[:, RIM:-RIM, RIM:-RIM]
        sums.add(small.numpy(), exact.numpy())
    result = sums.result()
    assert result is not None, "every pixel has a flow"
    return {metric: getattr(result, metric) for metric in METRICS}


def larger(clip_TCHW: torch.Tensor) -> np.ndarray:
    """Frames as an estimator takes them, uint8 (T, H, W, 3): with a rim of the torus, enlarged."""
    rimmed = functional.pad(clip_TCHW, (RIM, RIM, RIM, RIM), mode="circular")
    wide = functional.interpolate(rimmed, scale_factor=LARGER, mode="bicubic", align_corners=False)
    return (wide.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


@cache
def dis() -> Estimate:
    """OpenCV's DIS at its medium preset, as the suite `flow-dis` has it.

    Raises:
        RecordError: no OpenCV here.
    """
    if lack := OPENCV.missing():
        raise RecordError("eval", NAME, lack)
    return estimator("medium")

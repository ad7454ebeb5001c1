"""Delta Forcing's gate over finished videos: how far the teacher moves with the student from chunk to chunk.

Chunks, features and the teacher's estimate are those of training (`objectives.delta`, `rollout.long_sequence`); the
student's chunks are those of videos that are there already, so any arm can be judged, trained with the gate or not.
Source: Delta Forcing (arXiv 2605.14382), Eq. 6-11, sections 3 and 5.4.
Dimensions: B video, K chunk but the first, F latent frame, C channel, H, W; D feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from astro_cli.config.errors import CheckpointError
from astro_cli.core.flow import add_noise, timestep_of, x0_from_velocity
from astro_cli.generate.arm import Arm, load_arm
from astro_cli.models import weights
from astro_cli.models.features import load_features
from astro_cli.objectives.delta import calibrated, continuity, discrepancy, gate
from astro_cli.rollout.engine import frame_noise
from astro_cli.rollout.long_sequence import ChunkPlan
from astro_cli.rollout.reencoding import image_latent
from astro_cli.sampling.ode import guided

PHI = "codec"
GATE_SIGMA = 0.5  # noise level of the teacher's estimate, that of the recipes


@dataclass(frozen=True)
class Deltas:
    """rho and C (B, K) of every chunk but the first, and the first new frame of each."""

    rho_BK: torch.Tensor
    continuity_BK: torch.Tensor
    starts: tuple[int, ...]

    def gates(self, mu: float, s: float) -> torch.Tensor:
        """w (B, K) in [0, 1]."""
        return gate(self.rho_BK, mu, s)

    def calm(self, switch: int) -> torch.Tensor:
        """rho (N,) of the chunks in which no prompt takes over."""
        kept = [place for place, start in enumerate(self.starts) if start != switch]
        return self.rho_BK[:, kept].flatten()


def threshold(rho_N: torch.Tensor) -> tuple[float, float]:
    """mu and s, calibrated as in training from chunks without a switch."""
    return calibrated(rho_N)


def teacher_of(arm: Arm) -> Arm:
    """The packaged teacher of an arm's latents.

    Raises:
        CheckpointError: there is none.
    """
    for name in weights.packaged():
        if name.rpartition("/")[2].startswith("teacher"):
            teacher = load_arm(name)
            if (teacher.card["codec"], teacher.backbone.channels) == (arm.card["codec"], arm.backbone.channels):
                return teacher
    what = f"no packaged teacher of the latents of {arm.card['codec'] or 'shapes/codec'}"
    raise CheckpointError(arm.path, "codec", what, hint="evaluate a student of a packaged codec")


def plan_of(arm: Arm, chunks: int) -> ChunkPlan:
    """Videos of so many chunks: each as long as a training clip, and begun with a block of the one before."""
    frames, block = arm.card["video"]["frames"], arm.card["video"]["block"]
    return ChunkPlan(frames + (chunks - 1) * (frames - block), frames, block)


@torch.no_grad()
def deltas(
    arm: Arm, teacher: Arm, latents_BFCHW: torch.Tensor, prompts: Sequence[Sequence[str]], switch: int, seeds: list[int]
) -> Deltas:
    """rho and C of videos made in the chunks of `plan_of`.

    Args:
        prompts: of all videos before and from the switch on.
    """
    frames = latents_BFCHW.shape[1]
    plan = ChunkPlan(frames, arm.card["video"]["frames"], arm.card["video"]["block"])
    see, starts = load_features(PHI, arm.backbone, arm.network.device), plan.starts()
    fakes, reals = list[torch.Tensor](), list[torch.Tensor]()
    for start in starts:
        new = plan.new if start else plan.chunk
        window = _window(arm, latents_BFCHW, start, plan)
        history = latents_BFCHW[:, :start]
        estimate = _estimate(arm, teacher, window, list(prompts[start >= switch]), start + new, seeds)
        for kept, each in ((fakes, window), (reals, estimate)):
            pictures = arm.backbone.decoder().skip(history).push(each[:, -new:])
            kept.append(functional.normalize(see(pictures).float(), dim=1))
    later = range(1, len(starts))
    rho = [discrepancy(reals[k], reals[k - 1], fakes[k], fakes[k - 1]) for k in later]
    continuities = [continuity(fakes[k], fakes[k - 1]) for k in later]
    return Deltas(torch.stack(rho, 1).cpu(), torch.stack(continuities, 1).cpu(), tuple(starts[1:]))


def _window(arm: Arm, latents_BFCHW: torch.Tensor, start: int, plan: ChunkPlan) -> torch.Tensor:
    """A chunk as the teacher sees it: its first frame as the image it shows, unless the video begins with it."""
    if not start:
        return latents_BFCHW[:, : plan.chunk]
    first = start - plan.overlap
    lead = image_latent(arm.backbone, latents_BFCHW[:, : first + 1])
    return torch.cat((lead, latents_BFCHW[:, first + 1 : start + plan.new]), 1)


def _estimate(
    arm: Arm, teacher: Arm, window_BFCHW: torch.Tensor, prompts: list[str], end: int, seeds: list[int]
) -> torch.Tensor:
    """The teacher's x0 of a window under its prompt, from noise that belongs to the frames."""
    length, text = window_BFCHW.shape[1], arm.backbone.encode_text(prompts)
    velocity = guided(
        teacher.network, text, teacher.card["teacher"]["guidance"], arm.backbone.encode_text([""] * len(prompts))
    )
    noise = frame_noise(arm.stream_spec(end), seeds, range(end - length, end), "gate", window_BFCHW.device)
    sigma_BF = torch.full(window_BFCHW.shape[:2], GATE_SIGMA)
    x_t = add_noise(window_BFCHW, noise, sigma_BF)
    return x0_from_velocity(x_t, velocity(x_t, timestep_of(sigma_BF)), sigma_BF)

"""What can be evaluated or sampled: weights with their card, as a ready generator of latents. Scores nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import CheckpointError
from astro_cli.core.flow import warp_timesteps
from astro_cli.core.rng import sample_noise
from astro_cli.models import weights
from astro_cli.models.backbone import ShapesBackbone, load_backbone
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.streaming import StreamSpec, stream
from astro_cli.sampling.ode import euler, guided, sigma_grid


@dataclass(frozen=True)
class Arm:
    """Weights ready to generate. `seed` is the training seed of a tuned arm, None for a packaged base."""

    name: str
    seed: int | None
    network: CausalWan
    backbone: ShapesBackbone
    card: dict[str, Any]
    path: Path

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.network.config.in_channels, self.card["video"]["height"], self.card["video"]["width"]

    def stream_spec(self, frames: int) -> StreamSpec:
        """As trained up to the trained length; beyond it a window of that length with cache-relative positions (Infinity-RoPE)."""
        cache, video, sampler = self.card["cache"], self.card["video"], self.card["sampler"]
        spec = CacheSpec(cache["window"], cache["sink"], cache["relative"])
        if frames > video["frames"]:
            window = spec.window or video["frames"]
            spec = replace(spec, window=window, sink=max(spec.sink, video["block"]) if window > 2 * video["block"] else spec.sink, relative=True)
        return StreamSpec(warp_timesteps(tuple(sampler["steps"]), sampler["shift"]), video["block"], self.latent_shape, spec)

    @torch.no_grad()
    def stream(self, prompts: list[str], seeds: list[int], frames: int) -> Iterator[torch.Tensor]:
        """Latent blocks (B, block, C, H, W) of a few-step student."""
        text = self.network.encode_text(self.backbone.encode_text(prompts))
        yield from stream(self.network, text, seeds, self.stream_spec(frames), frames)

    @torch.no_grad()
    def generate(self, prompts: list[str], seeds: list[int], frames: int) -> torch.Tensor:
        """Latents (B, F, C, H, W): streamed by a student, integrated by a multi-step teacher."""
        if self.card["sampling"] == "few_step":
            return torch.cat(list(self.stream(prompts, seeds, frames)), 1)
        teacher, shift = self.card["teacher"], self.card["sampler"]["shift"]
        noise = sample_noise((frames, *self.latent_shape), seeds, "x_T")
        velocity = guided(self.network, self.backbone.encode_text(prompts), teacher["guidance"])
        return euler(velocity, noise, sigma_grid(teacher["steps"], shift))[0]


def load_arm(name: str) -> Arm:
    """A packaged base, a run folder or a weights file with its JSON card beside it.

    Raises:
        CheckpointError: weights or card missing, damaged or of another backbone.
    """
    path = weights.find(name, "student")
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(card_path, "", "missing: weights come with a card beside them", hint="copy the .json of the same name too") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(card_path, "", f"not a readable card: {error}") from error
    missing = {"recipe", "backbone", "model", "video", "sampler", "cache", "teacher", "sampling", "role"} - card.keys()
    if missing or card["role"] != "student":
        what = f"no {', '.join(sorted(missing))}" if missing else f"role is {card['role']!r}, expected 'student'"
        raise CheckpointError(card_path, "", f"not the card of a student or teacher: {what}")
    network = CausalWan(WanConfig(**card["model"]))
    weights.load_into(network, path)
    is_base = path.is_relative_to(weights.PACKAGED)
    backbone = load_backbone(card["backbone"], card.get("codec"))
    return Arm(card["recipe"], None if is_base else card["seed"], network.requires_grad_(False), backbone, card, path)

"""ViPO: a sample's advantage goes where its frames show something.

    A^p = M(p) A,   M >= 0 from the principal components of frozen features (`core.allocation`)

Features are the codec's on `shapes` and DINOv2's on Wan. `grpo` uses the map in a sample's ratio or in one of each
position. `map = "ones"` is the paper's negative control: with a ratio per position it is worse than no map.
Source: ViPO (arXiv 2511.18719); TeleBoost (arXiv 2602.07595) section 3.2, Eq. 2, and its released code
(`map = "released"`). Dimensions: P prompt, G sample of a prompt, B clip, T frame, F latent frame, h, w latent places.

**Deviations**: M has mean 1 per clip (`normalise = "mean"`): a map in [0, 1] also lowers the rate, by its mean. Frames
without variance fall back to the clip's mean, clips of such frames to ones; both are counted.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from astro_cli.advantages.base import Advantage as BaseAdvantage
from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import Scale, group_advantage
from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.allocation import at_latents, frame_maps, mean_one, released_map
from astro_cli.core.credit import Credit, Term
from astro_cli.models.backbone import Backbone
from astro_cli.models.dino import Dino, load_dinov2, missing_dinov2, patch_features
from astro_cli.models.shapes_backbone import ShapesBackbone


class Config(BaseConfig):
    """`components` is K; `sigma` blurs by so many patches; `normalise`: M's mean is 1, or M stays as it is."""

    map: Literal["components", "released", "ones"] = "components"
    components: int = Field(default=3, gt=0)
    sigma: float = Field(default=1.0, ge=0)
    normalise: Literal["mean", "none"] = "mean"
    scale: Scale = "group"

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.map == "released" and self.normalise == "mean":
            raise ValueError("normalise: found 'mean' with map 'released', which is in [0, 1]: expected 'none'")
        return self


class Advantage(BaseAdvantage):
    gives = "map"
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._network: Dino | None = None  # DINOv2, read for the first clips

    def lacks(self, backbone: str) -> str:
        return "" if backbone == "shapes" or self.config.map == "ones" else missing_dinov2()

    def observe(
        self, latents_BFCHW: torch.Tensor, frames_BTCHW: torch.Tensor, backbone: Backbone
    ) -> dict[str, torch.Tensor]:
        config, frames, size = self.config, latents_BFCHW.shape[1], (latents_BFCHW.shape[-2], latents_BFCHW.shape[-1])
        if config.map == "ones":
            ones = latents_BFCHW.new_ones(len(latents_BFCHW), frames, *size)
            return {"map": ones, "flat": ones[:, 0, 0, 0] * 0}
        features = self._features(frames_BTCHW, backbone)
        if config.map == "released":
            places, flat = released_map(features, size, frames, config.components, config.sigma)
        else:
            maps, flat = frame_maps(features, size, config.components, config.sigma)
            opens = frames_BTCHW.shape[1] == backbone.num_frames(frames)
            aligned = mean_one(maps, flat, frames, opens=opens)
            places = aligned if config.normalise == "mean" else at_latents(maps, frames, opens=opens)
        return {"map": places, "flat": flat.float().sum(1)}

    def _features(self, frames_BTCHW: torch.Tensor, backbone: Backbone) -> torch.Tensor:
        """(B, T, D, h, w), frozen."""
        if isinstance(backbone, ShapesBackbone):
            return backbone.features(frames_BTCHW)
        if self._network is None:
            self._network = load_dinov2()
        return patch_features(self._network, frames_BTCHW)

    def credit(self, scored: Scored, state: dict[str, torch.Tensor]) -> Credit:
        advantage, places = group_advantage(scored.total(), self.config.scale), scored.observed["map"]
        flat = scored.observed["flat"]
        metrics = {
            "map_fallbacks": flat.sum().item(),
            "map_mean": places.mean().item(),
            "map_deviation": places.flatten(2).std(2).mean().item(),
        }
        return Credit((Term(advantage, map=places),), metrics)

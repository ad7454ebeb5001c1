"""Flow matching with representation alignment: a hidden state of the network also has to say what the clean clip holds.

    L = L_flow + w mean || h_l[first channels] - f ||^2

h_l is the state of every token after layer l, f the features of the token's latent cells on the clean clip, each of
unit deviation. The features are the renderer's own maps of the object: coverage, shape, velocity, size.
Source: REPA (Yu et al. 2024, arXiv 2410.06940), Eq. 8.

**Deviations**: the features are exact maps instead of those of a pretrained encoder; a fixed part of the channels is
compared instead of a trained projection; squared distance instead of cosine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import nn

from astro_cli.core.flow import add_noise, timestep_of, velocity_target
from astro_cli.objectives import flow_matching
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.objectives.flow_matching import masked_text, noise_levels
from astro_cli.shapes.features import FEATURES
from astro_cli.spec import Recipe, StageSpec


class Config(flow_matching.Config):
    """`weight`: w; `layer`: l, from 1."""

    weight: float = Field(default=0.5, gt=0)
    layer: int = Field(default=2, gt=0)


@contextmanager
def hidden_state(block: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The outputs of a block's passes inside the `with`."""
    outputs: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        outputs.append(output)

    handle = block.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def per_token(features_BFKHW: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Features of latent cells -> of tokens, (B, F, tokens, K x patch), tokens row by row."""
    rows = features_BFKHW.unflatten(3, (-1, patch[0])).unflatten(5, (-1, patch[1]))  # B F K R p C q
    return rows.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)


class Objective(flow_matching.Objective):
    source = "astro_cli.training.feature_clips:FeatureClips"
    config: Config

    @classmethod
    def check(cls, config: Config, recipe: Recipe, stage: StageSpec, key: str) -> None:
        model = recipe.model
        if config.layer > model.num_layers:
            raise ValueError(
                f"{key}.objective.layer: found {config.layer}, expected at most the {model.num_layers} of the model"
            )
        compared = FEATURES * model.patch[0] * model.patch[1]
        if model.dim < compared:
            raise ValueError(f"model.dim: found {model.dim}, {key} compares {compared} channels of a hidden state")

    def loss(self, role: str, batch: Batch) -> LossOutput:
        x0, features = batch.latents_BFCHW, batch.features_BFKHW
        assert x0 is not None
        assert features is not None
        levels = (self.run_context.shift, self.config.mixed_noise, self.config.mixed_shift)
        sigma_BF = noise_levels(batch, x0.shape[1], *levels).to(x0.device)
        noise = batch.noise_like(x0, "noise")
        with self.run_context.roles.use(role) as network:
            text = network.encode_text(masked_text(batch, self.config.drop_text, self.run_context))
            with hidden_state(network.blocks[self.config.layer - 1]) as states:
                v = network(add_noise(x0, noise, sigma_BF), timestep_of(sigma_BF), text)
            wanted = per_token(features, network.config.patch)
            aligned = (states[0][..., : wanted.shape[-1]].float() - wanted).pow(2).mean()
        flow = (v - velocity_target(x0, noise)).float().pow(2).mean()
        return LossOutput(flow + self.config.weight * aligned, {"flow": flow.item(), "alignment": aligned.item()})

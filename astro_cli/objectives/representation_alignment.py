"""Representation alignment: a hidden state of the network also has to say what the clean clip holds. Here with flow
matching.

    L = L_flow + w mean || h_l[first channels] - f ||^2

h_l is the state of every token after layer l, f the features of the token's latent cells on the clean clip, each of
unit deviation. The features are the renderer's own maps of the object: coverage, shape, velocity, size.
Source: REPA (Yu et al. 2024, arXiv 2410.06940), Eq. 8.

**Deviations**: the features are exact maps instead of those of a pretrained encoder; a fixed part of the channels is
compared instead of a trained projection; squared distance instead of cosine.
"""

from __future__ import annotations

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.models.wan.hidden import hidden_state
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import flow_matching
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.shapes.features import FEATURES
from astro_cli.spec import Recipe, StageSpec


class AlignmentConfig(BaseConfig):
    """`weight`: w; `layer`: l, from 1."""

    weight: float = Field(default=0.5, gt=0)
    layer: int = Field(default=2, gt=0)


def per_token(features_BFKHW: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Features of latent cells -> of tokens, (B, F, tokens, K x patch), tokens row by row."""
    rows = features_BFKHW.unflatten(3, (-1, patch[0])).unflatten(5, (-1, patch[1]))  # B F K R p C q
    return rows.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)


class Aligned(BaseObjective):
    """Adds the term to the loss of the class after it. Where a pass holds the clean clip beside the noisy one, the
    states of both are compared.
    """

    source = "astro_cli.training.feature_clips:FeatureClips"
    shards = False
    config: AlignmentConfig

    @classmethod
    def check(cls, config: AlignmentConfig, recipe: Recipe, stage: StageSpec, key: str) -> None:
        model = recipe.model
        if config.layer > model.num_layers:
            raise ValueError(
                f"{key}.objective.layer: found {config.layer}, expected at most the {model.num_layers} of the model"
            )
        compared = FEATURES * model.patch[0] * model.patch[1]
        if model.dim < compared:
            raise ValueError(f"model.dim: found {model.dim}, {key} compares {compared} channels of a hidden state")

    def loss(self, role: str, batch: Batch) -> LossOutput:
        assert batch.features_BFKHW is not None
        network = self.run_context.roles.modules[role]
        assert isinstance(network, CausalWan)
        with hidden_state(network.blocks[self.config.layer - 1]) as states:
            plain = super().loss(role, batch)
        assert isinstance(plain, LossOutput)
        [state] = states
        wanted = per_token(batch.features_BFKHW, network.config.patch)
        wanted = wanted.repeat(1, state.shape[1] // wanted.shape[1], 1, 1)
        aligned = (state[..., : wanted.shape[-1]].float() - wanted).pow(2).mean()
        metrics = plain.metrics | {"flow": plain.loss.item(), "alignment": aligned.item()}
        return LossOutput(plain.loss + self.config.weight * aligned, metrics)


class Config(flow_matching.Config, AlignmentConfig):
    pass


class Objective(Aligned, flow_matching.Objective):
    config: Config

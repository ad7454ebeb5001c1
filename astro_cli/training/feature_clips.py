"""Encoded clips of the embedded world with what the renderer knows of every latent cell."""

from __future__ import annotations

import dataclasses

import torch

from astro_cli.objectives.base import Batch
from astro_cli.shapes.features import object_features
from astro_cli.spec import Recipe, StageSpec
from astro_cli.training.rendered_clips import ClipSource, taken
from astro_cli.training.sources import SourceContext, layout_of


class FeatureClips(ClipSource):
    """`ClipSource` whose batches carry `features_BFKHW`, of unit deviation over the pool."""

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        super().check(recipe, stage, key)
        if recipe.backbone != "shapes":
            raise ValueError(
                f"{key}.objective.kind: found {stage.kind!r} on {recipe.backbone}, expected shapes: "
                "the renderer gives the features"
            )

    @classmethod
    def make(cls, context: SourceContext) -> FeatureClips:
        source = super().make(context)
        assert isinstance(source, cls)
        data, backbone = context.spec.data, context.backbone
        rendered = source.latents.shape[1] + data.gap
        ends = torch.tensor([backbone.num_frames(data.lead + latent + 1) - 1.0 for latent in range(rendered)])
        layout = layout_of(source.scenes, source.pool, backbone.world)
        group = backbone.num_frames(2) - 1
        features = object_features(source.scenes, layout, ends, source.latents.shape[-1], group)
        features = taken(features, source.numbers_PF)
        source.features_BFKHW = features / features.std((0, 1, 3, 4), keepdim=True)
        return source

    features_BFKHW: torch.Tensor

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        batch = super().batch(use, step, role, size)
        return dataclasses.replace(batch, features_BFKHW=self.features_BFKHW[self.rows(batch.seeds)])

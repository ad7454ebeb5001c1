"""The files a run reads beside its recipe, and their hashes: a run goes on only with those it began with."""

from __future__ import annotations

from pathlib import Path

from astro_cli.media.clips import source_files
from astro_cli.media.pairs import pair_files
from astro_cli.models import checkpoint, features, hashes, weights
from astro_cli.models.shapes_backbone import codec_file
from astro_cli.recipe import objective_class
from astro_cli.rewards.scorers import scorers, split
from astro_cli.spec import ADAPTER_ROLES, Recipe, StageSpec
from astro_cli.training import tuned_decoder
from astro_cli.training.build import wanted_roles
from astro_cli.training.needs import features_of, rewards_of, scorer_tables


def files(recipe: Recipe) -> dict[str, tuple[Path, ...]]:
    """What a run reads, by the recipe's key that names it, or "backbone" and the reward's name.

    Raises:
        CheckpointError: weights that are not here.
        RecipeError: no prompts or clips.
    """
    wanted = wanted_roles(recipe)
    read = dict[str, tuple[Path, ...]]()
    for role in wanted:
        source = None if role in ("codec", *ADAPTER_ROLES) else recipe.base.of(role)
        if source is not None:
            wan = recipe.backbone == "wan"
            read[f"base.{role}"] = checkpoint.files(source) if wan else (weights.find(source, role),)
    if "codec" not in wanted:
        read |= _backbone(recipe)
    if (decoder := tuned_decoder.tuned_decoder(recipe)) is not None:
        read["base.student's decoder"] = (decoder,)
    for name in recipe.order:
        stage = recipe.stages[name]
        if stage.data.prompts is not None:
            read[f"stages.{name}.data.prompts"] = (Path(stage.data.prompts),)
        if stage.data.clips is not None:
            read[f"stages.{name}.data.clips"] = source_files(stage.data.clips)
        if stage.data.pairs is not None:
            read[f"stages.{name}.data.pairs"] = pair_files(stage.data.pairs)
        if recipe.backbone == "wan":
            read |= _rewards(stage)
        read |= {
            part.what: (part.here,) for part in objective_class(stage).weight_files(recipe) if part.here is not None
        }
        read |= {f"features {key}": (features.find(key),) for key in features_of(stage) if key in features.FILES}
    return read


def digests(recipe: Recipe) -> dict[str, str]:
    """16 hex digits over the content of each key's files.

    Raises:
        As `files`.
    """
    return {key: hashes.of_files(paths) for key, paths in files(recipe).items() if paths}


def _backbone(recipe: Recipe) -> dict[str, tuple[Path, ...]]:
    if recipe.backbone == "shapes":
        return {"base.codec": (codec_file(recipe.base.codec),)}
    from astro_cli.models.wan_backbone import backbone_files

    return {"backbone": backbone_files(recipe.base.codec)}


def _rewards(stage: StageSpec) -> dict[str, tuple[Path, ...]]:
    from astro_cli.rewards import hpsv3, videoalign

    owners = {"vq": hpsv3, "mq": videoalign, "ta": videoalign}
    own, outside = split(rewards_of(stage))
    files = {key: owners[key].files() for key in own}
    files |= scorers().files(outside, scorer_tables(stage)) if outside else {}
    return {f"reward {key}": paths for key, paths in files.items()}

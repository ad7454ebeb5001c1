"""How much memory a recipe is expected to need, part by part, before anything is loaded.

Counted are the weights of all that is loaded, what training keeps of trained weights, the keys and values of the
clips that are generated at once, and latents that are encoded before a stage begins; not activations.
"""

from __future__ import annotations

import os
import re

import torch

from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.core import memory
from astro_cli.recipe import objective_class
from astro_cli.shapes.video_codec import VideoCodec
from astro_cli.spec import PERTURBED, ROLLED, FormSpec, Recipe, StageSpec
from astro_cli.training.build import dry_run_counts, frozen_adapters, wanted_roles, weights_dtype
from astro_cli.training.needs import rewards_of, rolled
from astro_cli.training.pairs import forms_of
from astro_cli.zoo.sizes import HPSV3_PARAMETERS, UMT5_PARAMETERS, VAE_PARAMETERS, VIDEOALIGN_PARAMETERS

# float32 weight, gradient and what the optimiser keeps: AdamW's two moments, RMSProp's mean square; Muon's one momentum
# is counted as two.
BYTES_PER_TRAINED = {"adam": 16, "muon": 16, "rmsprop": 12}
SCORER_BYTES = 2  # both are run in bfloat16, their heads aside


def check_fits(recipe: Recipe, device: torch.device) -> None:
    """Refuse sizes that this machine cannot hold, before anything of them is allocated. What is only tight may try.

    Raises:
        RecipeError: networks, cache or pre-encoded clips of more bytes than there are.
    """
    parts = _networks(recipe, dry_run_counts(recipe)) | _cache(recipe) | _clips(recipe)
    there = memory.total()
    if device.type == "cuda":
        there += sum(torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count()))
    part, needed = max(parts.items(), key=lambda item: item[1])
    world = os.environ.get("WORLD_SIZE", "")  # of processes, perhaps on other machines: networks may be sharded
    if needed > there * (int(world) if re.fullmatch("[1-9][0-9]{0,5}", world) else 1):
        what = f"{part}: {needed / 2**30:,.1f} GiB, this machine has {there / 2**30:,.1f} GiB"
        hint = "smaller [model], [video], batch or data.pool; `--dry-run` lists the parts"
        raise RecipeError(recipe.name, "memory", what, hint=hint)


def device_memory(wanted: str) -> tuple[str, float]:
    """The device a run would use, in words, and its bytes: one CUDA device's, or the main memory.

    Args:
        wanted: "auto", "cpu" or "cuda"; where CUDA is absent it is the main memory, as a dry run needs no device.
    """
    if wanted != "cpu" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return f"there is, on one {properties.name}", properties.total_memory
    absent = ", no CUDA device here" if wanted == "cuda" else ""
    return f"there is, main memory{absent}", memory.total()


def expected_bytes(recipe: Recipe, counts: dict[str, tuple[int, int]]) -> dict[str, int]:
    """Bytes by part.

    Args:
        counts: (trainable, total) parameters per network, from `dry_run_counts`.
    """
    return _networks(recipe, counts) | _around(recipe) | _cache(recipe) | _clips(recipe)


def _networks(recipe: Recipe, counts: dict[str, tuple[int, int]]) -> dict[str, int]:
    roles = role_bytes(recipe, counts).values()
    return {
        "frozen weights": sum(frozen for frozen, _ in roles),
        "trained weights and optimiser": sum(trained for _, trained in roles),
    }


def _clips(recipe: Recipe) -> dict[str, int]:
    """Latents of the clips that a stage without rollouts encodes before it begins, those of all forms where there are
    pairs; nothing for a run of rollouts alone.
    """
    most = max(_cells_kept(recipe, recipe.stages[name]) for name in recipe.order)
    return {"latents of clips": most * recipe.model.in_channels * torch.float32.itemsize} if most else {}


def _cells_kept(recipe: Recipe, stage: StageSpec) -> int:
    """Latent cells of the clips that a stage keeps in memory: the embedded world's pool; on Wan, whose latents are on
    the disk, those of a step.
    """
    video, pool = recipe.video, stage.data.pool if recipe.backbone == "shapes" else stage.batch
    if stage.experience is not None:
        return 0
    if stage.pairs is None:
        return pool * (stage.data.frames or video.frames) * video.height * video.width
    forms = [form.frames * form.height * form.width for form in forms_of(recipe, stage.pairs)]
    rendered = recipe.backbone == "shapes" and not set(PERTURBED).isdisjoint(stage.pairs.used)
    return 2 * max(pool * sum(forms) if rendered else 0, stage.batch * max(forms))


def role_bytes(recipe: Recipe, counts: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Bytes of each network: of its frozen weights, and of its trained ones with gradients and optimiser."""
    sizes = dict[str, tuple[int, int]]()
    for role, (trainable, total) in counts.items():
        still = trainable * len(frozen_adapters(recipe)) if role == "student" else 0  # theta_old and theta_ref, float32
        frozen = (total - trainable - still) * weights_dtype(recipe, role).itemsize + still * torch.float32.itemsize
        sizes[role] = frozen, trainable * _bytes_per_trained(recipe, role)
    return sizes


def _bytes_per_trained(recipe: Recipe, role: str) -> int:
    """Of the stage that keeps most; 0 for a role that none trains."""
    optims = [recipe.stages[name].optim for name in recipe.order]
    return max((BYTES_PER_TRAINED[optim[role].kind] for optim in optims if role in optim), default=0)


def _around(recipe: Recipe) -> dict[str, int]:
    """What stands around the transformers: the codec of `shapes`, or Wan's text encoder, VAE and the scorers of the
    rewards.
    """
    if recipe.backbone == "shapes":
        if "codec" in wanted_roles(recipe):
            return {}  # counted as a network
        with torch.device("meta"):
            return {"codec": sum(p.numel() for p in VideoCodec().parameters()) * torch.float32.itemsize}
    parts = {"VAE": VAE_PARAMETERS * torch.float32.itemsize, "UMT5": UMT5_PARAMETERS * _text_bytes(recipe.base.codec)}
    keys = set[str]().union(*(rewards_of(recipe.stages[name]) for name in recipe.order))
    parts |= {"HPSv3": HPSV3_PARAMETERS * SCORER_BYTES} if "vq" in keys else {}
    by_videoalign = [key for key in keys if key in ("mq", "ta") or key.startswith("videoalign.")]
    return parts | ({"VideoAlign": VIDEOALIGN_PARAMETERS * SCORER_BYTES} if by_videoalign else {})


def _text_bytes(source: str | None) -> int:
    """Bytes per parameter of the text encoder, which runs as stored: bfloat16 in the original file, float32 in
    diffusers' folder or where none is.
    """
    # It imports transformers and diffusers; the embedded world saves these seconds.
    from astro_cli.models.umt5 import FOLDER
    from astro_cli.models.wan_backbone import wan_folder

    try:
        folder = wan_folder(source)
    except CheckpointError:
        return torch.float32.itemsize  # a dry run needs no weights
    return torch.float32.itemsize if (folder / FOLDER).is_dir() else torch.bfloat16.itemsize


def _cache(recipe: Recipe) -> dict[str, int]:
    """Keys and values of the videos that are generated at once, in the student's dtype: all of a video, or its
    window.
    """
    config = recipe.model
    stages = [recipe.stages[name] for name in recipe.order]
    tokens = max(_tokens(recipe, form) for stage in stages for form in _forms(recipe, stage))
    batch = max(_videos_at_once(stage) for stage in stages)
    size = 2 * config.num_layers * tokens * config.dim * weights_dtype(recipe, "student").itemsize
    return {f"cache of {batch} videos": size * batch}


def _forms(recipe: Recipe, stage: StageSpec) -> tuple[FormSpec, ...]:
    """Forms of the videos that a stage generates or learns from."""
    if stage.pairs is not None:
        return forms_of(recipe, stage.pairs)
    video = recipe.video
    frames = (stage.experience.frames if stage.experience else None) or rolled(stage) or video.frames
    return (FormSpec(frames=frames, height=video.height, width=video.width),)


def _tokens(recipe: Recipe, form: FormSpec) -> int:
    """Tokens of a video that are kept: of all its frames, or of the window."""
    (rows, columns), frames = recipe.model.patch, min(recipe.cache.window or form.frames, form.frames)
    return frames * (form.height // rows) * (form.width // columns)


def _videos_at_once(stage: StageSpec) -> int:
    """Videos whose keys and values one process holds at a time, alone in the run."""
    if stage.experience is not None and stage.experience.parallel is not None:
        return stage.experience.parallel
    if stage.pairs is not None and not set(ROLLED).isdisjoint(stage.pairs.used):
        return max(stage.pairs.parallel or stage.batch * stage.pairs.group, stage.batch // stage.accumulate)
    return stage.batch if objective_class(stage).persistent else stage.batch // stage.accumulate

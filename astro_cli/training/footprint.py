"""How much memory a recipe is expected to need, part by part, before anything is loaded.

Counted are the weights of all that is loaded, what training keeps of trained weights, and the keys and values of the
clips that are generated at once; not activations.
"""

from __future__ import annotations

import os
import re

import torch

from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.core import memory
from astro_cli.recipe import objective_class
from astro_cli.shapes.video_codec import VideoCodec
from astro_cli.spec import Recipe, StageSpec
from astro_cli.training.build import dry_run_counts, frozen_adapters, wanted_roles, weights_dtype
from astro_cli.training.needs import rewards_of
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
    return _networks(recipe, counts) | _around(recipe) | _cache(recipe)


def _networks(recipe: Recipe, counts: dict[str, tuple[int, int]]) -> dict[str, int]:
    roles = role_bytes(recipe, counts).values()
    return {
        "frozen weights": sum(frozen for frozen, _ in roles),
        "trained weights and optimiser": sum(trained for _, trained in roles),
    }


def _clips(recipe: Recipe) -> dict[str, int]:
    """Latents of the clips that a stage without rollouts encodes before it begins."""
    video, most = recipe.video, 0
    for stage in (recipe.stages[name] for name in recipe.order):
        if stage.experience is None:
            frames = (stage.data.frames or video.frames) + stage.data.lead
            pool = stage.data.pool if recipe.backbone == "shapes" else stage.batch
            most = max(most, pool * frames * recipe.model.in_channels * video.height * video.width)
    return {"latents of clips": most * torch.float32.itemsize}


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
    config, video = recipe.model, recipe.video
    stages = [recipe.stages[name] for name in recipe.order]
    length = max((stage.experience.frames if stage.experience else None) or video.frames for stage in stages)
    frames = min(recipe.cache.window or length, length)
    tokens = (video.height // config.patch[0]) * (video.width // config.patch[1])
    batch = max(_videos_at_once(stage) for stage in stages)
    size = 2 * config.num_layers * frames * tokens * config.dim * weights_dtype(recipe, "student").itemsize
    return {f"cache of {batch} videos": size * batch}


def _videos_at_once(stage: StageSpec) -> int:
    """Videos whose keys and values one process holds at a time, alone in the run."""
    if stage.experience is not None and stage.experience.parallel is not None:
        return stage.experience.parallel
    return stage.batch if objective_class(stage).persistent else stage.batch // stage.accumulate

"""What weights need to be sampled (sizes, video, sampler, cache): from their JSON card, a recipe, or Wan 2.1's own
values.

A card is the table `training.release` writes beside a finished run's weights. Released Wan students have none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from astro_cli.cache.spec import CacheSpec
from astro_cli.config import toml
from astro_cli.config.base import Config, validate
from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.config.files import Reader
from astro_cli.config.problems import first_problem
from astro_cli.models.checkpoint import Checkpoint
from astro_cli.models.wan.config import WanConfig
from astro_cli.recipe import load_recipe
from astro_cli.spec import SamplerSpec, TeacherSampler, VideoSpec
from astro_cli.training.release import describe
from astro_cli.zoo import hub
from astro_cli.zoo.entries import BY_NAME, Release, of_path
from astro_cli.zoo.places import release_of

Card = dict[str, Any]
NEEDED = frozenset({"recipe", "backbone", "model", "video", "sampler", "cache", "teacher", "sampling", "role"})
STUDENT = "student.safetensors"  # what a run calls its final weights
WAN_BASE = "base/wan_1.3b.toml"
SPECS = {"video": VideoSpec, "sampler": SamplerSpec, "teacher": TeacherSampler}
TEACHERS = "Wan-AI/"  # hub account of the undistilled models
FRAME_WISE: Card = {"video": {"block": 1}}
# What a release runs with where it differs from Wan's recipes, from its own inference configuration. Deviations: the
# released one- and two-step students take four steps for their first block, here as many as for the others; MemFlow's
# memory bank is left out.
RELEASED: dict[str, Card] = {
    "longlive": {"cache": {"window": 12, "sink": 3}},
    "memflow": {"cache": {"window": 12, "sink": 3}},
    "reward_forcing": {"cache": {"window": 9, "sink": 3, "relative": True, "policy": "ema", "alpha": 0.999}},
    "causal_forcing_framewise": FRAME_WISE,
    "causal_forcing_framewise_ar": FRAME_WISE,
    "causal_forcing_framewise_ode": FRAME_WISE,
    "causal_forcing_framewise_cd": FRAME_WISE,
    "causal_forcing_1step": {**FRAME_WISE, "sampler": {"steps": (1000,)}},
    "causal_forcing_2step": {**FRAME_WISE, "sampler": {"steps": (1000, 500)}},
}


class _Fields(Config):
    """What is read of a card; it says more."""

    model_config = ConfigDict(extra="ignore")

    recipe: str
    recipe_hash: str | None = None
    seed: int | None = None
    backbone: Literal["shapes", "wan"]
    role: str
    model: WanConfig
    video: VideoSpec
    sampler: SamplerSpec
    cache: CacheSpec
    teacher: TeacherSampler
    sampling: Literal["few_step", "ode"]
    codec: str | None = None
    decoder: Literal["decoder.safetensors"] | None = (
        None  # a file beside the weights: the codec's decoder, trained with a motion branch
    )


def of_weights(path: Path) -> Card:
    """The card beside a weights file.

    Raises:
        CheckpointError: missing, unreadable, or not that of a student or teacher.
    """
    card_path = path.with_suffix(".json")
    if not card_path.exists():
        hint = "copy the .json of the same name too, or name a recipe with --recipe"
        raise CheckpointError(card_path, "", "missing: weights come with a card beside them", hint=hint)
    card = Reader(CheckpointError, what="not a readable card").table(card_path)
    missing = NEEDED - card.keys()
    if missing or card["role"] != "student":
        what = f"no {', '.join(sorted(missing))}" if missing else f"role is {card['role']!r}, expected 'student'"
        raise CheckpointError(card_path, "", f"not the card of a student or teacher: {what}")
    try:
        validate(_Fields, card)
    except ValidationError as error:
        wrong = first_problem(error, _Fields)
        raise CheckpointError(card_path, wrong.key, f"found {wrong.shown}: {wrong.what}", hint=wrong.hint) from error
    return card


def of_recipe(name: str) -> Card:
    """The card weights trained by a recipe would have."""
    return describe(load_recipe(name), "student")


def base_of_recipe(name: str) -> str:
    """The student a recipe starts from.

    Raises:
        RecipeError: it names none.
    """
    student = load_recipe(name).base.student
    if student is None:
        raise RecipeError(
            name, "base.student", "missing: the recipe names no student", hint="name the weights with --weights"
        )
    return student


def of_wan(checkpoint: Checkpoint) -> Card:
    """The card of released Wan weights: their sizes, the values Wan recipes share, and what the release runs with.

    Wan 2.1 itself is a multi-step teacher, all else a few-step student.
    """
    table = toml.load(WAN_BASE).data
    source = checkpoint.source
    named = _named(source)
    entry = named or release_of(source, source)
    name = named.name if named is not None else _plain_name(source)
    card: Card = {
        "recipe": name,
        "recipe_hash": None,
        "seed": None,
        "backbone": "wan",
        "role": "student",
        "codec": None,
        "model": checkpoint.config.model_dump(),
        "cache": {"window": None, "sink": 0, "relative": False},
        "sampling": "ode" if entry is not None and entry.repo.startswith(TEACHERS) else "few_step",
        **{key: spec(**table[key]).model_dump() for key, spec in SPECS.items()},
    }
    for key, values in RELEASED.get(entry.name if entry is not None else "", {}).items():
        card[key] |= values
    return card


def _plain_name(source: Path) -> str:
    """A file's name, or that of the folder around a transformer whose file has the name all have."""
    if not source.name.startswith("diffusion_pytorch_model"):
        return source.stem
    if (at := hub.of_snapshot(source)) is not None:
        return at.repo.split("/")[1]
    return (source.parent.parent if source.parent.name == "transformer" else source.parent).resolve().name


def _named(source: Path) -> Release | None:
    """The release a file belongs to by its own path, that of the folder it lies in, or the name it was imported under;
    an import under another name says it in its manifest.
    """
    near = (source, *source.parents[:2], *source.resolve().parents[:2])
    return next((entry for path in near if (entry := of_path(path) or BY_NAME.get(path.name)) is not None), None)

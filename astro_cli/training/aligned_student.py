"""Whether the weights that RL aligns are what the recipe's policy is, from their card or release: a few-step student of
its block size, or a bidirectional model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.config.files import Reader
from astro_cli.models import checkpoint, hashes, weights
from astro_cli.spec import REFERENCE, Recipe
from astro_cli.zoo.places import release_of

ALIGNING = ("rl", "long-tune", "sft", "prefer")  # commands that keep the student's sampler and blocks
TEACHER_HINT = 'policy = "streaming" aligns a student; a bidirectional policy is, for example, shapes/teacher'
HINT = "name a distilled student, for example shapes/self_forcing or a run folder of `astro distill`"


def check_student(recipe: Recipe) -> None:
    """Refuse weights that RL would silently take for its policy. Weights with neither card nor known release are
    accepted.

    Raises:
        RecipeError: a reference of another base; another role's weights; for a streaming policy a model that is sampled
            in many steps or in no blocks, or blocks of another size; for a bidirectional one a few-step student.
        CheckpointError: no such weights, or a card that is damaged.
    """
    source = recipe.base.student
    if recipe.command not in ALIGNING or source is None:
        return
    file = checkpoint.find(source) if recipe.backbone == "wan" else weights.find(source, "student")
    check_reference(recipe)
    card = file.with_suffix(".json")
    if file.suffix != ".json" and card.exists():  # a sharded model's file is its index, and no card
        _check_card(recipe, source, card)
    elif recipe.backbone == "wan" and (entry := release_of(source, file)) is not None:
        if recipe.bidirectional:
            if entry.block is not None:
                what = f"found {source!r}, {entry.what}: a student that streams in blocks of {entry.block}"
                raise RecipeError(recipe.name, "base.student", what, hint=TEACHER_HINT)
            return
        if entry.block is None:
            raise RecipeError(
                recipe.name,
                "base.student",
                f"found {source!r}, {entry.what}: it is bidirectional and streams in no blocks",
                hint=HINT,
            )
        _check_block(recipe, source, entry.block)


def check_reference(recipe: Recipe) -> None:
    """Refuse a reference that is named in `base` and is not the student's own weights.

    Raises:
        RecipeError: other weights.
        CheckpointError: no such weights.
    """
    source = recipe.base.of(REFERENCE)
    if source is None:
        return
    wan, student = recipe.backbone == "wan", str(recipe.base.student)
    named = checkpoint.files(source) if wan else (weights.find(source, REFERENCE),)
    own = checkpoint.files(student) if wan else (weights.find(student, "student"),)
    if hashes.of_files(named) != hashes.of_files(own):
        what = f"found {source!r}, other weights than those of base.student, {recipe.base.student!r}"
        hint = "the reference is the student without its adapters: start from it, or leave base.reference out"
        raise RecipeError(recipe.name, f"base.{REFERENCE}", what, hint=hint)


def _check_card(recipe: Recipe, source: str, card: Path) -> None:
    facts = _read(card)
    if facts["role"] != "student":
        raise RecipeError(recipe.name, "base.student", f"found {source!r}, the weights of a {facts['role']}", hint=HINT)
    if recipe.bidirectional:
        if facts["sampling"] == "few_step":
            what = f"found {source!r}, a few-step student of {facts['recipe']}, the recipe's policy is bidirectional"
            raise RecipeError(recipe.name, "base.student", what, hint=TEACHER_HINT)
        return
    if facts["sampling"] != "few_step":
        what = f"found {source!r}, a model of {facts['recipe']} that is sampled in many steps"
        raise RecipeError(recipe.name, "base.student", what, hint=HINT)
    _check_block(recipe, source, facts["video"]["block"])


def _read(card: Path) -> dict[str, Any]:
    hint = "copy the .json that came with the weights"
    facts = Reader(CheckpointError, what="no readable card", hint=hint).table(card)
    try:
        return {key: facts[key] for key in ("role", "sampling", "recipe")} | {
            "video": {"block": facts["video"]["block"]}
        }
    except (LookupError, TypeError) as error:
        what = f"no readable card ({type(error).__name__}: {error})"
        raise CheckpointError(card, "", what, hint=hint) from error


def _check_block(recipe: Recipe, source: str, block: int) -> None:
    if block != recipe.video.block:
        what = f"found {recipe.video.block}, {source} streams in blocks of {block}"
        raise RecipeError(recipe.name, "video.block", what, hint=f"set video.block = {block}")

"""What a finished run leaves: final weights under `final/`, a card with recipe hash, seed, commit and sizes. Trains nothing."""

from __future__ import annotations

from pathlib import Path

from astro_cli.models import lora, weights
from astro_cli.objectives.base import Setting
from astro_cli.recipe import Recipe
from astro_cli.training.rundir import RunDir, git_state


def write_final(recipe: Recipe, setting: Setting, run: RunDir) -> None:
    """Write the trained student (adapters merged; the adapter also on its own in peft's layout) or codec, then the card."""
    for role in ("student", "codec"):
        module = setting.roles.modules.get(role)
        if module is None:
            continue
        if recipe.lora is not None and role == "student":
            state = lora.merged_state(module, lora.TRAINED)
            lora.save_peft(run.final / "lora", lora.adapter_state(module, lora.TRAINED), recipe.lora.rank, recipe.lora.alpha)
        else:
            state = module.state_dict()
        weights.write(run.final / f"{role}.safetensors", state)
        write_card(recipe, role, run.final)
    weights.write_json(run.final / "card.json", {"recipe": recipe.name, "recipe_hash": recipe.hash(), "seed": recipe.seed})


def write_card(recipe: Recipe, role: str, folder: Path) -> None:
    """The JSON card of `folder/<role>.safetensors`: where the weights come from and how to sample them."""
    card = {
        "recipe": recipe.name, "recipe_hash": recipe.hash(), "seed": recipe.seed, "backbone": recipe.backbone, "role": role, **git_state(),
        "weights_hash": weights.digest(folder / f"{role}.safetensors"), "model": recipe.model.model_dump(),
        "video": recipe.video.model_dump(), "sampler": recipe.sampler.model_dump(), "cache": recipe.cache.model_dump(),
        "teacher": recipe.teacher.model_dump(), "sampling": "ode" if recipe.command == "pretrain" else "few_step",
    }  # fmt: skip
    weights.write_json(folder / f"{role}.json", card)

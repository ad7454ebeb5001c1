"""What a finished run leaves: final weights under `final/`, a card with recipe hash, seed, commit and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from astro_cli.config.durable import write_json
from astro_cli.models import hashes, lora, lora_files, weights
from astro_cli.objectives.base import RunContext
from astro_cli.objectives.sft_flow import DECODER
from astro_cli.spec import Recipe
from astro_cli.training.build import released_roles, trained_roles
from astro_cli.training.rundir import RunDir
from astro_cli.training.sharded import is_divided, whole
from astro_cli.training.tuned_decoder import FILE


def write_final(recipe: Recipe, run_context: RunContext, run: RunDir, *, writes: bool = True) -> None:
    """Write the trained student or codec and the roles that objectives declare, each with its card, then the run's; and
    the decoder that the run began with, where one was tuned with its base.

    Adapters are merged, and also written on their own in peft's and diffusers' layouts: the student's to `lora`,
    another role's to `lora-<role>`. All processes call it, for networks that are divided among them; one `writes`.
    """

    def gathered(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        each = ((key, whole(value)) for key, value in state.items())
        return {key: value.cpu() if is_divided(state[key]) else value for key, value in each if writes}

    roles = released_roles(recipe)
    carried = [DECODER] if DECODER in run_context.roles.modules and DECODER not in roles else []
    for role in (*carried, *roles):
        module = run_context.roles.modules[role]
        if (spec := recipe.lora_of(role)) is not None:
            state = gathered(lora.merged_state(module, lora.TRAINED))
            adapter = gathered(lora.adapter_state(module, lora.TRAINED))
            folder = run.final / ("lora" if role == "student" else f"lora-{role}")
            for save in (lora_files.save_peft, lora_files.save_diffusers) if writes else ():
                save(folder, adapter, spec.rank, spec.alpha, lora.TARGETS)
        else:
            state = gathered(module.state_dict())
        if not writes:
            continue
        weights.write(run.final / f"{role}.safetensors", state)
        write_card(recipe, role, run.final, run.origin())
    if writes:
        run.finish(recipe)


def write_card(recipe: Recipe, role: str, folder: Path, environment: dict[str, Any]) -> None:
    """The JSON card of `folder/<role>.safetensors`: where the weights come from and how to sample them.

    `environment` is that of the run's start: its commit made the weights.
    """
    made = {
        "commit": environment["commit"],
        "dirty": environment["dirty"],
        "weights_hash": hashes.digest(folder / f"{role}.safetensors"),
    }
    if (folder / FILE).is_file():  # of this run, or of the base
        made["decoder"] = FILE
    write_json(folder / f"{role}.json", describe(recipe, role) | made)


def describe(recipe: Recipe, role: str) -> dict[str, Any]:
    """What a card says of the recipe: its identity, sizes and how its weights are sampled."""
    return {
        "recipe": recipe.name,
        "recipe_hash": recipe.hash(),
        "seed": recipe.seed,
        "backbone": recipe.backbone,
        "role": role,
        "model": recipe.model_of(role).model_dump(),
        "video": recipe.video.model_dump(),
        "sampler": recipe.sampler.model_dump(),
        "cache": recipe.cache.model_dump(),
        "teacher": recipe.teacher.model_dump(),
        "sampling": "ode" if recipe.bidirectional else "few_step",
        "codec": recipe.base.codec,
        "decoder": FILE if DECODER in trained_roles(recipe) else None,
    }

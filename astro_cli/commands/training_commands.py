"""The commands that train, from `astro pretrain` to `prefer`: one command line; they differ in their recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from astro_cli.commands.executor_options import with_executors
from astro_cli.commands.push import PushOption
from astro_cli.commands.recipe import complete_recipe, summary
from astro_cli.commands.training_run import SetOption, execute
from astro_cli.config import toml
from astro_cli.config.errors import RecipeError

if TYPE_CHECKING:
    from astro_cli.spec import Command


def refuse_without_recipe(command: Command, example: str) -> NoReturn:
    """Name the recipes of a command, those that need no weights first.

    Raises:
        RecipeError: always.
    """
    rows = [row for row in map(summary, toml.list_recipes()) if row["command"] == command]
    rows.sort(key=lambda row: row["backbone"] == "wan")
    width = max(len(row["name"]) for row in rows)
    lines = [f"  {row['name']:<{width}}  {row['backbone']:<6}  {row['description']}" for row in rows]
    what = "\n".join(["missing; the recipes of this command:", *lines])
    raise RecipeError("--recipe", "", what, hint=f"astro {command} --recipe {example}")


def _command(name: Command, text: str, example: str, *, executors: bool = False) -> Callable[..., None]:
    def command(
        recipe: Annotated[
            str | None,
            typer.Option(
                "--recipe",
                "-r",
                help="Recipe file, or its bare name in recipes/. Without it: lists them.",
                autocompletion=complete_recipe,
            ),
        ] = None,
        set_: SetOption = None,
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/<recipe name>-seed<seed>.")
        ] = None,
        steps: Annotated[
            int | None, typer.Option("--steps", min=1, help="Train the last stage for this many steps.")
        ] = None,
        seed: Annotated[
            int | None, typer.Option("--seed", min=0, help="Seed of the run; overrides the recipe's.")
        ] = None,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Print the resolved recipe, parameter counts and expected memory, and stop."
            ),
        ] = False,
        resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, to the same bits.")] = False,
        push_to_hub: PushOption = None,
        ray: Any = None,
    ) -> None:
        chosen = recipe or refuse_without_recipe(name, example)
        execute(name, chosen, set_, out, steps, seed, dry_run, resume, push_to_hub, ray)

    command.__doc__ = f"{text}\n\nExample: astro {name} --recipe {example}"
    return with_executors(command, offered=executors)


pretrain = _command(
    "pretrain", "Train the latent codec or the bidirectional multi-step teacher.", "teacher_shapes.toml"
)
distill = _command("distill", "Distil the teacher into a causal few-step student.", "self_forcing_shapes.toml")
rl = _command(
    "rl",
    "Align a streaming student by forward-process reinforcement learning.",
    "astrolabe_causal_shapes.toml --seed 1",
    executors=True,
)
long_tune = _command(
    "long-tune",
    "Align a streaming student on windows of long videos; memory does not grow with the video.",
    "astrolabe_long_shapes.toml --seed 1",
)
sft = _command(
    "sft",
    "Fine-tune a model on clips: flow matching, with clips of an unstable structure weighing more.",
    "sft_geometry_shapes.toml --seed 1",
)
prefer = _command(
    "prefer",
    "Align a model with pairs of a preferred and a rejected clip: DPO.",
    "dpo_temporal_shapes.toml --seed 1",
)

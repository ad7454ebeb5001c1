"""`astro pretrain`, `distill`, `rl` and `long-tune`: one command line; they differ in the recipes they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astro_cli.commands.training_run import SetOption, execute

if TYPE_CHECKING:
    from astro_cli.spec import Command


def _command(name: Command, text: str, example: str) -> Callable[..., None]:
    def command(
        recipe: Annotated[str, typer.Option("--recipe", "-r", help="Recipe file, or its bare name in recipes/.")],
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
    ) -> None:
        execute(name, recipe, set_, out, steps, seed, dry_run, resume)

    command.__doc__ = f"{text}\n\nExample: astro {name} --recipe {example}"
    return command


pretrain = _command(
    "pretrain", "Train the latent codec or the bidirectional multi-step teacher.", "teacher_shapes.toml"
)
distill = _command("distill", "Distil the teacher into a causal few-step student.", "self_forcing_shapes.toml")
rl = _command(
    "rl",
    "Align a streaming student by forward-process reinforcement learning.",
    "astrolabe_causal_shapes.toml --seed 1",
)
long_tune = _command(
    "long-tune",
    "Align a streaming student on windows of long videos; memory does not grow with the video.",
    "astrolabe_long_shapes.toml --seed 1",
)

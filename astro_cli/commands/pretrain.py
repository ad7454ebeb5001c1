"""`astro pretrain`: train the latent codec or the bidirectional multi-step teacher."""

from __future__ import annotations

from astro_cli.commands.training_run import (
    DryRunOption,
    OutOption,
    RecipeOption,
    ResumeOption,
    SeedOption,
    SetOption,
    StepsOption,
    execute,
)


def pretrain(
    recipe: RecipeOption, set_: SetOption = None, out: OutOption = None, steps: StepsOption = None, seed: SeedOption = None,
    dry_run: DryRunOption = False, resume: ResumeOption = False,
) -> None:  # fmt: skip
    """Train the latent codec or the bidirectional multi-step teacher.

    Example: astro pretrain --recipe teacher_shapes.toml
    """
    execute("pretrain", recipe, set_, out, steps, seed, dry_run, resume)

"""`astro distill`: distil the teacher into a causal few-step student."""

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


def distill(
    recipe: RecipeOption, set_: SetOption = None, out: OutOption = None, steps: StepsOption = None, seed: SeedOption = None,
    dry_run: DryRunOption = False, resume: ResumeOption = False,
) -> None:  # fmt: skip
    """Distil the teacher into a causal few-step student.

    Example: astro distill --recipe self_forcing_shapes.toml
    """
    execute("distill", recipe, set_, out, steps, seed, dry_run, resume)

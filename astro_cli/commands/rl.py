"""`astro rl`: align a streaming student by forward-process reinforcement learning."""

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


def rl(
    recipe: RecipeOption, set_: SetOption = None, out: OutOption = None, steps: StepsOption = None, seed: SeedOption = None,
    dry_run: DryRunOption = False, resume: ResumeOption = False,
) -> None:  # fmt: skip
    """Align a streaming student by forward-process reinforcement learning.

    Example: astro rl --recipe astrolabe_causal_shapes.toml --seed 1
    """
    execute("rl", recipe, set_, out, steps, seed, dry_run, resume)

"""`astro long-tune`: align a streaming student on windows of long videos (streaming long tuning)."""

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


def long_tune(
    recipe: RecipeOption, set_: SetOption = None, out: OutOption = None, steps: StepsOption = None, seed: SeedOption = None,
    dry_run: DryRunOption = False, resume: ResumeOption = False,
) -> None:  # fmt: skip
    """Align a streaming student on windows of long videos; memory does not grow with the video.

    Example: astro long-tune --recipe astrolabe_long_shapes.toml --seed 1
    """
    execute("long-tune", recipe, set_, out, steps, seed, dry_run, resume)

"""What the training commands share: recipe -> run folder -> trainer -> final weights."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from astro_cli.commands.console import echo, loading, plain_console
from astro_cli.commands.push import check_name, check_push, push_and_say
from astro_cli.config import toml_text
from astro_cli.config.errors import EXIT_RUN, CheckpointError, RecipeError, RunError
from astro_cli.config.files import Reader
from astro_cli.core import processes, threads

if TYPE_CHECKING:
    from astro_cli.execution.options import RayOptions
    from astro_cli.spec import Recipe

GIB = 2**30
SET_HELP = "Override a recipe value; repeatable. A table, KEY={...}, replaces the whole table."
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help=SET_HELP)]


def resolve(
    recipe_name: str, command: str | None, overrides: list[str] | None, steps: int | None, seed: int | None
) -> Recipe:
    """The recipe with the command line's overrides."""
    from astro_cli.recipe import load_recipe

    sets = list(overrides or [])
    if seed is not None:
        sets.append(f"seed={seed}")
    recipe = load_recipe(recipe_name, sets, command)
    if steps is not None:
        recipe = load_recipe(recipe_name, [*sets, f"stages.{recipe.order[-1]}.steps={steps}"], command)
    return recipe


def execute(
    command: str,
    recipe_name: str,
    overrides: list[str] | None,
    out: Path | None,
    steps: int | None,
    seed: int | None,
    dry_run: bool,
    resume: bool,
    push_to_hub: str | None = None,
    ray: RayOptions | None = None,
) -> None:
    """Run one training command; on a pool of workers where `ray` says which.

    Raises:
        AstroError: anything the user can cause, before a weight is read where possible.
    """
    if push_to_hub is not None:
        check_name(push_to_hub)
    with loading(recipe_name):
        recipe = resolve(recipe_name, command, overrides, steps, seed)
    if dry_run:
        show_dry_run(recipe)
        return
    if push_to_hub is not None:
        check_push(push_to_hub)
    folder = out or Path("runs") / f"{recipe.name}-seed{recipe.seed}"
    train(recipe, recipe_name, overrides or [], folder, resume=resume, ray=ray)
    if push_to_hub is not None:
        push_and_say(folder, push_to_hub, Path("results"))


def train(
    recipe: Recipe, recipe_name: str, overrides: list[str], out: Path, *, resume: bool, ray: RayOptions | None = None
) -> Path:
    """Train a resolved recipe in a folder with a progress bar; returns the folder."""
    console = plain_console(stderr=True)
    say = partial(console.print, soft_wrap=True)
    begin = _inline(recipe, out) if ray is None else _on_ray(recipe, out, ray)
    try:
        begin(given(recipe_name, overrides), resume, say)
    except KeyboardInterrupt:
        say(f"interrupted; continue with: {_again(recipe.command)}")
        raise typer.Exit(EXIT_RUN) from None
    except OSError as error:
        hint = f"the run's checkpoints are whole; with space again: {_again(recipe.command)}"
        raise RunError(out, "", f"cannot be written: {error.strerror}", hint=hint) from error
    return out


def train_on_cores(recipe: Recipe, recipe_name: str, overrides: list[str], out: Path, *, resume: bool) -> None:
    """As `train`, with a process on each core of a machine without a GPU: networks as small as those of the embedded
    world gain nothing from a second thread.
    """
    count = _processes(recipe)
    if count == 1:
        train(recipe, recipe_name, overrides, out, resume=resume)
        return
    sets = [argument for override in overrides for argument in ("--set", override)]
    arguments = [recipe.command, "--recipe", recipe_name, "--out", str(out), *sets, *(["--resume"] if resume else [])]
    try:
        code = processes.run_together(arguments, count, OMP_NUM_THREADS="1")
    except KeyboardInterrupt:
        plain_console(stderr=True).print(f"interrupted; continue with: {_again(recipe.command)}", soft_wrap=True)
        raise typer.Exit(EXIT_RUN) from None
    if code:
        raise RunError(out, "", f"training on {count} processes ended with exit code {code}; what it said is above")


def _processes(recipe: Recipe) -> int:
    """As many as there are cores, if the batches divide; one on a GPU, and where a number of threads is asked for."""
    with loading("torch"):
        from astro_cli.training.build import pick_device

    if pick_device(recipe.runtime.device).type != "cpu" or threads.is_set_by_user():
        return 1
    stages = [recipe.stages[name] for name in recipe.order]
    shares = [
        stage.experience.prompts if stage.experience else stage.batch // (stage.accumulate * stage.data.samples)
        for stage in stages
    ]
    return processes.most_processes(shares, threads.cores())


Begin = Callable[[str, bool, Callable[[str], None]], None]  # the recipe as given, whether to resume, what is said


def _inline(recipe: Recipe, out: Path) -> Begin:
    with loading(f"{recipe.name} and its weights"):
        from astro_cli.commands.progress import RunProgress
        from astro_cli.training.run import prepare

        prepared = prepare(recipe, out)
    return lambda given, resume, say: prepared.train(given, resume=resume, progress=RunProgress(), say=say)


def _on_ray(recipe: Recipe, out: Path, options: RayOptions) -> Begin:
    from astro_cli.execution.options import check_installed, set_environment

    check_installed()
    set_environment(options)
    with loading("Ray"):
        from astro_cli.commands.progress import RunProgress
        from astro_cli.execution import ray_run

    return lambda given, resume, say: ray_run.train(
        recipe, out, given, options, resume=resume, progress=RunProgress(), say=say
    )


def _again(command: str) -> str:
    """The command line that continues this run; studies resume by themselves."""
    arguments = sys.argv[1:]
    resumes = arguments[:1] != [command] or "--resume" in arguments
    return shlex.join(["astro", *arguments, *([] if resumes else ["--resume"])])


def given(recipe_name: str, overrides: list[str]) -> str:
    """The recipe as the user gave it: the file's text, with the overrides above as comments."""
    from astro_cli.config.toml import find_recipe

    text = Reader(RecipeError).text(find_recipe(recipe_name))
    return "".join(f"# --set {override}\n" for override in overrides) + text


def show_dry_run(recipe: Recipe) -> None:
    """The resolved recipe as TOML on stdout, parameter counts and memory beside the device's on stderr.

    Raises:
        RecipeError: the reference that it names is here, and has other weights than the student.
    """
    with loading(recipe.name):
        from astro_cli.training.aligned_student import check_reference
        from astro_cli.training.build import dry_run_counts
        from astro_cli.training.footprint import device_memory, expected_bytes, role_bytes

        with suppress(CheckpointError):  # a dry run needs no weights
            check_reference(recipe)
        counts = dry_run_counts(recipe)
    echo(toml_text.dumps(recipe.model_dump(mode="json", exclude_none=True)), nl=False)
    _show_reward_plan(recipe)
    table = Table("network", "trainable", "total", "memory", title=f"{recipe.name} ({recipe.hash()})")
    bytes_of = role_bytes(recipe, counts)
    for role, (trainable, total) in counts.items():
        table.add_row(role, f"{trainable:,}", f"{total:,}", f"{sum(bytes_of[role]) / GIB:.2f} GiB")
    console = plain_console(stderr=True)
    console.print(table)
    parts, (device, there) = expected_bytes(recipe, counts), device_memory(recipe.runtime.device)
    grid = Table("expected memory", "GiB")
    for what, size in parts.items():
        grid.add_row(what, f"{size / GIB:.2f}")
    total = sum(parts.values())
    grid.add_row("sum, without activations", f"{total / GIB:.2f}")
    grid.add_row(device, f"{there / GIB:.2f}")
    console.print(grid)
    if total > there:
        console.print(
            f"warning: {total / GIB:.1f} GiB are more than the {there / GIB:.1f} GiB of this device; smaller [model], "
            "[video] or batch, or several devices",
            soft_wrap=True,
        )


def _show_reward_plan(recipe: Recipe) -> None:
    """How rewards would run side by side, where that was measured for this recipe on this machine."""
    if not any(recipe.stages[name].experience for name in recipe.order):
        return
    from astro_cli.commands.plan import show_plan
    from astro_cli.execution import reward_plans

    if (plan := reward_plans.kept(recipe)) is not None:
        show_plan(plan)
    else:
        command = f"astro plan rewards --recipe {recipe.name}"
        plain_console(stderr=True).print(f"rewards side by side: not measured here; {command}", soft_wrap=True)

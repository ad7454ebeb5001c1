"""What the four training commands share: recipe -> run folder -> trainer -> final weights."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from astro_cli.commands.console import echo, loading, plain_console
from astro_cli.config import toml_text
from astro_cli.config.errors import EXIT_RUN, RecipeError, RunError
from astro_cli.config.files import Reader

if TYPE_CHECKING:
    from astro_cli.spec import Recipe

GIB = 2**30
SET_HELP = "Override a recipe value; repeatable. A table, KEY={...}, replaces the whole table."
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help=SET_HELP)]


def resolve(recipe_name: str, command: str, overrides: list[str] | None, steps: int | None, seed: int | None) -> Recipe:
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
) -> None:
    """Run one training command.

    Raises:
        AstroError: anything the user can cause, before a weight is read where possible.
    """
    with loading(recipe_name):
        recipe = resolve(recipe_name, command, overrides, steps, seed)
    if dry_run:
        show_dry_run(recipe)
        return
    train(recipe, recipe_name, overrides or [], out or Path("runs") / f"{recipe.name}-seed{recipe.seed}", resume=resume)


def train(recipe: Recipe, recipe_name: str, overrides: list[str], out: Path, *, resume: bool) -> Path:
    """Train a resolved recipe in a folder; returns the folder. A finished run is left as it is when resuming."""
    console = plain_console(stderr=True)
    with loading(f"{recipe.name} and its weights"):
        from astro_cli.commands.progress import RunProgress
        from astro_cli.core import threads
        from astro_cli.training.build import build, make_accelerator, pick_device
        from astro_cli.training.footprint import check_fits
        from astro_cli.training.release import write_final
        from astro_cli.training.rundir import RunDir
        from astro_cli.training.trainer import Trainer

        run, video = RunDir(out), recipe.video
        threads.fit(recipe.model.layer_flops(video.block, video.height, video.width))
        device = pick_device(recipe.runtime.device)
        check_fits(recipe, device)
        run_context, backbone = build(recipe, device)  # before the folder: missing weights leave no folder behind
        accelerator = make_accelerator(recipe, str(out))
    try:
        if accelerator.is_main_process:
            for warning in run.open(recipe, given(recipe_name, overrides), resume=resume, device=str(device)):
                console.print(f"warning: {warning}", soft_wrap=True)
        accelerator.wait_for_everyone()
        if run.finished:
            fault = run.final_fault()
            if not fault:
                console.print(f"{out}: finished already")
                return out
            console.print(f"warning: {fault}; written again from the last checkpoint", soft_wrap=True)
        with RunProgress() as progress:
            Trainer(recipe, run_context, backbone, run, accelerator, progress).fit(resume=resume)
        if accelerator.is_main_process:
            write_final(recipe, run_context, run)
    except KeyboardInterrupt:
        console.print(f"interrupted; continue with: {_again(recipe.command)}", soft_wrap=True)
        raise typer.Exit(EXIT_RUN) from None
    except OSError as error:
        hint = f"the run's checkpoints are whole; with space again: {_again(recipe.command)}"
        raise RunError(out, "", f"cannot be written: {error.strerror}", hint=hint) from error
    finally:
        run.release()
    if accelerator.is_main_process:
        console.print(f"done: {out} (final weights in {run.final})", soft_wrap=True)
    return out


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
    """The resolved recipe as TOML on stdout, parameter counts and memory beside the device's on stderr."""
    with loading(recipe.name):
        from astro_cli.training.build import dry_run_counts
        from astro_cli.training.footprint import device_memory, expected_bytes, role_bytes

        counts = dry_run_counts(recipe)
    echo(toml_text.dumps(recipe.model_dump(mode="json", exclude_none=True)), nl=False)
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

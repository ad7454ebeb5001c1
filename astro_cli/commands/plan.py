"""`astro plan rewards`: which rewards of a recipe run side by side, with which share of the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from astro_cli.commands.console import echo, loading, plain_console
from astro_cli.commands.progress import RunProgress
from astro_cli.commands.recipe import complete_recipe
from astro_cli.commands.threads_option import with_threads
from astro_cli.commands.training_run import SetOption, resolve
from astro_cli.config.errors import AstroError

if TYPE_CHECKING:
    from astro_cli.spec import Recipe

plan_app = typer.Typer(name="plan", no_args_is_help=True)
MOST_CLIPS, MOST_REPEATS = 4096, 100
QUOTAS = "0.25,0.5,1"


@plan_app.callback()
def plan_group() -> None:
    """Plan how a run uses the machine.

    Example: astro plan rewards --recipe grpo_streaming_shapes --clips 4 --repeats 1
    """


def rewards(
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Recipe of `astro rl`.", autocompletion=complete_recipe)
    ],
    set_: SetOption = None,
    quotas: Annotated[
        str, typer.Option(help="Shares of the device to measure at, three or more, each at most 1.")
    ] = QUOTAS,
    clips: Annotated[
        int | None, typer.Option(min=1, max=MOST_CLIPS, help="Clips to score. Default: those of an epoch.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=MOST_REPEATS, help="Measurements of each; the median counts.")] = 3,
    profiles: Annotated[
        Path | None,
        typer.Option(help="Plan from these profiles, JSON of seconds by worker and quota; nothing is measured."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan there too, as JSON.")] = None,
) -> None:
    """Measure the rewards of a recipe under shares of the device, and plan which of them score side by side.

    The plan is timed against one reward after the other, and kept for `astro rl --executor ray` and `--dry-run`. JSON
    goes to stdout, a table to stderr. "serial" means that side by side gains nothing.

    Example: astro plan rewards --recipe grpo_streaming_shapes --clips 4 --repeats 1
    """
    shares = parse_quotas(quotas)
    with loading(recipe):
        from astro_cli.execution import reward_plans

        loaded = resolve(recipe, "rl", set_, None, None)
    if profiles is not None:
        plan = _from_profiles(profiles)
    else:
        plan = _measured(loaded, shares, clips, repeats)
        reward_plans.keep(loaded, plan)
    show_plan(plan)
    if out is not None:
        from astro_cli.config.durable import write_json

        write_json(out, plan)
    echo(json.dumps(plan, indent=2, sort_keys=True))


def _from_profiles(path: Path) -> dict[str, Any]:
    from astro_cli.core import makespan
    from astro_cli.execution import reward_plans

    measured = reward_plans.read_profiles(path)
    plan = makespan.plan({name: makespan.fit(profile) for name, profile in measured.items()})
    return reward_plans.described(plan, measured, "unknown")


def _measured(recipe: Recipe, quotas: list[float], clips: int | None, repeats: int) -> dict[str, Any]:
    from astro_cli.core import makespan
    from astro_cli.execution import reward_plans
    from astro_cli.training.build import wanted_roles
    from astro_cli.training.needs import check_needs

    reward_plans.check_device(recipe)
    check_needs(recipe, wanted_roles(recipe))
    works = reward_plans.works(recipe, clips)
    with RunProgress() as progress:
        measured = reward_plans.measure(works, quotas, repeats, progress.work)
        chosen = makespan.plan({name: makespan.fit(profile) for name, profile in measured.items()})
        plan = reward_plans.described(chosen, measured, reward_plans.device_of(recipe))
        plan |= {"recipe": recipe.name, "clips": works[0].clips}
        plan["timed"] = reward_plans.run_plan(chosen, works, repeats)
    return plan


def parse_quotas(text: str) -> list[float]:
    """Raises: AstroError for anything but three or more different shares, each above 0 and at most 1."""
    from astro_cli.core.makespan import check_profile

    try:
        quotas = [float(part) for part in text.split(",")]
        check_profile(dict.fromkeys(quotas, 1.0))
    except ValueError as error:
        raise AstroError("--quotas", text, str(error), hint=f"--quotas {QUOTAS}") from error
    return quotas


def show_plan(plan: dict[str, Any]) -> None:
    """The plan as a table on stderr."""
    console = plain_console(stderr=True)
    table = Table("group", "reward", "quota", "seconds", title=f"reward phase: {plan['answer']}")
    for number, group in enumerate(plan["groups"], 1):
        for name, worker in group["workers"].items():
            share = f"{worker['quota']:.2f}"
            if "mps_percentage" in worker:
                share += f" (MPS {worker['mps_percentage']} %)"
            table.add_row(str(number), name, share, f"{group['seconds']:.3f}")
    console.print(table)
    console.print(f"planned {plan['seconds']:.3f} s, one after the other {plan['serial_seconds']:.3f} s, by the fits")
    if timed := plan.get("timed"):
        medians, idle = timed["median"], timed["idle_share"]
        console.print(
            f"timed: planned {medians['planned']:.3f} s, one after the other {medians['serial']:.3f} s; idle "
            f"{100 * idle['planned']:.0f} % and {100 * idle['serial']:.0f} % of {timed['cores']} cores"
        )


plan_app.command("rewards")(with_threads(rewards))

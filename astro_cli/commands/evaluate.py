"""`astro eval`: the group of its commands, one per suite beside list, check, compare and those for files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from astro_cli.commands.console import loading, plain_column, plain_console, resumable
from astro_cli.commands.eval_annotations import gsb, likert, rank
from astro_cli.commands.eval_check import check
from astro_cli.commands.eval_compare import compare
from astro_cli.commands.eval_ingest import ingest
from astro_cli.commands.eval_list import list_
from astro_cli.commands.eval_suite import suite_command
from astro_cli.commands.limits import MOST_PROMPTS
from astro_cli.commands.student_options import SizeOption, StretchOption
from astro_cli.commands.threads_option import with_threads
from astro_cli.config.errors import RecordError, did_you_mean
from astro_cli.config.seeds import parse_seeds
from eval.world.suites import WORLD_SUITES, world_suite

DEFAULT_SUITE = "shapes"
Timing = Literal["once", "again", "none"]
TABLE_WIDTH = 160  # columns where stdout is no terminal


class SuiteGroup(TyperGroup):
    """Its commands are those registered and one per suite, made when they are looked up."""

    def list_commands(self, ctx: Any) -> list[str]:
        from eval.suites.suite import list_suites

        return [*super().list_commands(ctx), *WORLD_SUITES, *list_suites()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from eval.suites.suite import list_suites

        if cmd_name in WORLD_SUITES:
            return _single(cmd_name, with_threads(_arm_command(cmd_name)))
        if cmd_name in list_suites():
            return _single(cmd_name, with_threads(suite_command(cmd_name)))
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise RecordError("eval", args[0], "no such suite or command", hint=did_you_mean(args[0], known))
        return super().resolve_command(ctx, args)


eval_app = typer.Typer(
    name="eval",
    cls=SuiteGroup,
    no_args_is_help=True,
    help="Score arms of the embedded world, or folders of videos, under a suite; list, check and compare.\n\n"
    "Example: astro eval temporal-flickering samples --name my_arm",
)
eval_app.command("list")(list_)
eval_app.command("compare")(compare)
eval_app.command("ingest")(ingest)
eval_app.command("gsb")(gsb)
eval_app.command("likert")(likert)
eval_app.command("rank")(rank)
eval_app.command("check")(check)


def _single(name: str, function: Any) -> Any:
    """A click command of its own."""
    app = typer.Typer(add_completion=False)
    app.command(name)(function)
    return typer.main.get_command(app)


def _arm_command(name: str) -> Any:
    suite = world_suite(name)

    def command(
        arms: Annotated[
            list[str], typer.Option("--arm", "-a", help="Packaged base, run folder or weights file; repeatable.")
        ],
        seeds: Annotated[
            str,
            typer.Option(help="Comma-separated paired noise seeds; a tuned run is scored at its own training seed."),
        ] = "0",
        prompts: Annotated[int, typer.Option(min=1, max=MOST_PROMPTS, help="Held-out prompts.")] = suite.prompts,
        results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results"),
        size: SizeOption = None,
        stretch: StretchOption = None,
        timing: Annotated[
            Timing,
            typer.Option(help="Frames per second: measured once, again (say, after a busy machine), or not (none)."),
        ] = "once",
    ) -> None:
        if timing == "again" and not suite.timed:
            raise RecordError(
                "--timing", timing, f"{name} measures no frames per second", hint="astro eval shapes does"
            )
        evaluate_arms(arms, parse_seeds(seeds), prompts, results, name, timing, size=size, stretch=stretch)

    command.__doc__ = (
        f"{suite.title}: score bases and tuned students on held-out prompts with paired noise; what is "
        "recorded is not scored again.\n\n"
        f"Example: astro eval {name} --arm shapes/causal_forcing --arm shapes/self_forcing --prompts 8"
    )
    return command


def evaluate_arms(
    arms: list[str],
    seeds: list[int],
    prompts: int,
    results: Path,
    name: str = DEFAULT_SUITE,
    timing: Timing = "once",
    *,
    brief: bool = False,
    size: str | None = None,
    stretch: bool | None = None,
) -> None:
    """Score each base at every seed and each tuned run at its own, under a suite of arms; print the means.

    Args:
        timing: whether arms whose frames per second are recorded are timed all the same, and whether any are.
        brief: time with fewer turns and no long video.
        size, stretch: of the videos (`eval.world.run.at_size`).
    """
    suite, console = world_suite(name), plain_console(stderr=True)
    with loading(", ".join(arms)):
        from astro_cli.generate.arm import load_arm
        from eval.world.run import at_size, check_distinct, evaluate_arm, time_arms

        loaded = [at_size(load_arm(arm), size, suite, stretch=stretch) for arm in arms]
    pairs = [(arm, seed) for arm in loaded for seed in (seeds if arm.seed is None else [arm.seed])]
    check_distinct(pairs)
    columns = (plain_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    kept = "arms and seeds that are scored are kept"
    with resumable(kept), Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        means = []
        for arm, seed in pairs:
            bar = progress.add_task(f"{arm.name} seed {seed}", total=prompts)
            means.append(
                evaluate_arm(
                    arm, seed, prompts, results, lambda done, _, bar=bar: progress.update(bar, completed=done), suite
                )
            )
        shown = [metric for metric in suite.shown if metric != "throughput" or timing != "none"]
        if suite.timed and timing != "none":
            progress.add_task("frames per second", total=None)
            rates = time_arms(pairs, prompts, results, again=timing == "again", brief=brief)
            means = [row | {"throughput": rate} for row, rate in zip(means, rates, strict=True)]
    table = Table("arm", "seed", *shown)
    for (arm, seed), row in zip(pairs, means, strict=True):
        table.add_row(arm.name, str(seed), *(f"{row[key]:.3f}" for key in shown))
    plain_console(width=TABLE_WIDTH).print(table)

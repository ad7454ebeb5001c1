"""`astro eval SUITE DIR`: scores a folder of videos. Owns the options, the progress bar and the table of results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from astro_cli.commands.console import loading, plain_column, plain_console, resumable
from astro_cli.commands.limits import MOST_JOBS
from astro_cli.config.errors import EXIT_PARTIAL, RecordError

if TYPE_CHECKING:
    from eval.inputs.entries import Finding
    from eval.scoring.outcomes import Outcome
    from eval.scoring.run import Report, Request
    from eval.suites.suite import Suite

FAILURES_SHOWN = 10
TABLE_WIDTH = 160  # columns where stdout is no terminal
FRACTION, PERCENT = "0..1", 100
ARROWS = {"up": "higher is better", "down": "lower is better"}


class Decoder(StrEnum):
    auto = "auto"
    av = "av"
    decord = "decord"


class SeedFrom(StrEnum):
    manifest = "manifest"


def suite_command(name: str) -> Any:
    """The command of one suite of videos."""
    from eval.suites.suite import load_suite

    suite = load_suite(name)

    def command(
        folder: Annotated[
            Path | None,
            typer.Argument(
                metavar="DIR", help="Folder of videos: with manifest.jsonl, VBench's names, or of astro sample."
            ),
        ] = None,
        arm: Annotated[
            str, typer.Option("--name", "-n", help="Name of the arm in records and tables. Default: the folder's.")
        ] = "",
        seed: Annotated[int, typer.Option("--seed", help="Seed of the records, e.g. the training seed.")] = 0,
        seed_from: Annotated[
            SeedFrom | None, typer.Option("--seed-from", help="A record per seed the folder states, instead of --seed.")
        ] = None,
        metrics: Annotated[
            str, typer.Option("--metrics", "-m", help="Only these, comma-separated; totals come with the last.")
        ] = "",
        prompts: Annotated[
            str, typer.Option("--prompts", help="Another prompt set, or a file with a prompt a line.")
        ] = "",
        limit: Annotated[
            int | None, typer.Option("--limit", min=1, help="First N prompts only; tables do not show the records.")
        ] = None,
        jobs: Annotated[
            int, typer.Option("--jobs", "-j", min=1, max=MOST_JOBS, help="Processes, each with scorers of its own.")
        ] = 1,
        decoder: Annotated[Decoder, typer.Option("--decoder", help="Both give the same frames.")] = Decoder.auto,
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", "-s", metavar="SCORER.KEY=VALUE", help="Change a scorer; repeatable."),
        ] = None,
        results: Annotated[Path, typer.Option("--results", help="Folder of records and per-sample scores.")] = Path(
            "results"
        ),
        allow_partial: Annotated[
            bool, typer.Option("--allow-partial", help="Means of what is there, called partial; exit 0.")
        ] = False,
    ) -> None:
        if folder is None:
            refuse_without_folder(name, suite)
        with loading(name):
            from eval.scoring.run import Request
        names = tuple(part.strip() for part in metrics.split(",") if part.strip())
        chosen = None if seed_from else seed
        run(
            Request(
                name,
                folder,
                arm or folder.resolve().name,
                results,
                chosen,
                names,
                prompts,
                limit,
                jobs,
                decoder.value,
                tuple(set_ or ()),
            ),
            allow_partial=allow_partial,
        )

    command.__doc__ = (
        f"{suite.title}.\n\nVideos scored before are not scored again. Exit 3: some videos or metrics are "
        "missing; `astro eval check` says which.\n\n"
        f"Example: astro eval {name} samples --name my_arm"
    )
    return command


def refuse_without_folder(name: str, suite: Suite) -> NoReturn:
    """Say what the suite scores and how a folder is made for it.

    Raises:
        RecordError: always.
    """
    from eval.scoring.scorers import missing_of, readiness
    from eval.suites.suite import list_suites

    of_prompts = f"videos of the prompt set {suite.prompts!r}, {suite.samples} a prompt" if suite.prompts else "videos"
    lines = readiness(missing_of(suite))
    with_scorers = "with these scorers:" if lines else f"with the scorers {', '.join(_labels(suite))}"
    what = "\n".join([f"missing; {name} scores a folder of {of_prompts}, {with_scorers}", *lines])
    own = f"{name}-custom"
    hint = f"your own videos and prompts: astro eval {own} DIR; " if own in list_suites() else ""
    raise RecordError("DIR", "", what, hint=f"{hint}astro eval check DIR --suite {name} says what a folder lacks")


def _labels(suite: Suite) -> list[str]:
    return [spec.label for spec in suite.scorers]


def run(request: Request, *, allow_partial: bool) -> None:
    """Evaluate with a progress bar, print the outcome, and exit 3 where it is partial."""
    from eval.scoring import run as suite_run

    console = plain_console(stderr=True)
    columns = (
        plain_column(),
        BarColumn(),
        MofNCompleteColumn(),
        plain_column("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    kept = "what is scored is kept"
    with resumable(kept), Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(request.suite, total=None, rate="")

        def step() -> None:
            progress.update(bar, advance=1)
            speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
            progress.update(bar, rate=f"{speed:.2f} videos/s" if speed else "")

        def read(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total, description="reading files")

        def begin(total: int) -> None:
            progress.reset(bar, total=total, description=request.suite, rate="")

        def warn(finding: Finding) -> None:
            console.print(f"warning: {finding.file}: {finding.key}: {finding.what}", soft_wrap=True)
            console.print(f"hint: {finding.hint}", soft_wrap=True)

        report = suite_run.evaluate(request, suite_run.Progress(read, begin, step, warn))
    show(report, console, allow_partial=allow_partial)
    if not report.complete and not allow_partial:
        raise typer.Exit(EXIT_PARTIAL)


def show(report: Report, console: Console, *, allow_partial: bool) -> None:
    """The table of metrics on stdout; what failed or did not run on stderr."""
    table = Table("seed", "metric", "value", "95 %", "coverage", "unit", "better")
    for evaluated in report.seeds:
        for outcome in (*evaluated.outcomes, *evaluated.totals):
            table.add_row(str(evaluated.seed), *row(outcome, allow_partial=allow_partial))
    plain_console(width=TABLE_WIDTH).print(table)
    for name, texts in report.not_run.items():
        console.print(f"not run: {name}: needs {'; '.join(texts)}", soft_wrap=True)
    for failure in report.failures[:FAILURES_SHOWN]:
        console.print(f"failed: {failure.video}: {failure.scorer}: {failure.what}", soft_wrap=True)
    if len(report.failures) > FAILURES_SHOWN:
        console.print(f"and {len(report.failures) - FAILURES_SHOWN} more failures")
    if report.order.limit is not None:
        console.print(f"limited to {report.order.limit} prompts: tables and claims leave these records out")
    written = sum(len(evaluated.written) for evaluated in report.seeds)
    console.print(f"{report.scored} scores made, {report.reused} kept from before; records written: {written}")


def unit(name: str, scale: float) -> str:
    """The unit of what is shown; fractions x 100 are percent."""
    if (name, scale) == (FRACTION, PERCENT):
        return "percent"
    return name if scale == 1 else f"{name} x {scale:g}"


def row(outcome: Outcome, *, allow_partial: bool) -> list[str]:
    """metric, value, interval, coverage, unit, direction."""
    import numpy as np

    from eval.records.stats import has_interval, mean_interval

    tail = [outcome.coverage, unit(outcome.info.unit, outcome.scale), ARROWS[outcome.info.direction]]
    if outcome.scores is None:
        mean = f"{outcome.mean:.4f}" if allow_partial and outcome.mean is not None else ""
        name, value = (f"{outcome.key} (partial)", mean) if mean else (outcome.key, f"partial ({outcome.coverage})")
        return [name, value, "", f"{outcome.coverage} {outcome.parts}", *tail[1:]]
    if outcome.mean is None:
        return [outcome.key, "does not apply", "", *tail]
    scores_P = np.array(outcome.scores, dtype=float)
    interval = mean_interval(scores_P)
    return [
        outcome.key,
        f"{outcome.mean:.4f}",
        f"{interval.low:.4f} .. {interval.high:.4f}" if has_interval(scores_P) else "",
        *tail,
    ]

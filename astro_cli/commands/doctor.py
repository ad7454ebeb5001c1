"""`astro doctor`: prints what this machine has and lacks."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from astro_cli.commands.console import echo, loading, plain_console
from astro_cli.commands.parity import parity
from astro_cli.commands.threads_option import with_threads
from astro_cli.commands.world import world
from astro_cli.inspection.machine import examine

doctor_app = typer.Typer(name="doctor", invoke_without_command=True)
doctor_app.command("parity")(with_threads(parity))
doctor_app.command("world")(with_threads(world))
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@doctor_app.callback()
def doctor_group(context: typer.Context, json_: JsonOption = False) -> None:
    """Report versions, device, memory, packaged bases, and which optional parts are here; `parity` replays recordings
    of the released models, `world` measures what a base of the embedded world has learned.

    Optional checkpoints are looked for below the folder ASTRO_CHECKPOINTS names, by default ~/.cache/astro.

    Example: astro doctor --json
    """
    if context.invoked_subcommand is None:
        doctor(json_)


def doctor(json_: JsonOption = False) -> None:
    """Print the report, as tables or as JSON."""
    with loading("torch"):
        report = examine()
    if json_:
        echo(json.dumps(report, indent=2))
    else:
        show(report)


def show(report: dict[str, Any]) -> None:
    """The report as tables on stdout."""
    console = plain_console()
    table(
        console,
        "versions",
        ("package", "version"),
        [(name, version or "not installed") for name, version in report["versions"].items()],
    )
    table(console, "machine", ("what", "value"), machine_rows(report))
    rows = [
        (
            base["name"],
            base["recipe"] or "?",
            "?" if base["seed"] is None else str(base["seed"]),
            scores_text(base["scores"]),
        )
        for base in report["bases"]
    ]
    table(console, "packaged bases", ("name", "recipe", "seed", "scores"), rows)
    parts = [
        (part["label"], "yes" if part["found"] else "no", part["enables"], part["missing"])
        for part in report["optional"]
    ]
    table(console, f"optional parts, files in {report['checkpoints']}", ("part", "here", "enables", "missing"), parts)
    console.print(report["note"])


def machine_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    spec = report["machine"]
    devices = [
        f"{each['kind']} {each['name']}" + (f", {each['memory_gib']} GiB" if each["memory_gib"] else "")
        for each in report["devices"]
    ]
    return [
        ("devices", "; ".join(devices) or "none: torch cannot be imported"),
        ("cores", str(spec["cores"])),
        ("threads, embedded world", f"{spec['threads']}: {spec['threads_why']}"),
        ("threads, Wan 2.1", f"{spec['threads_large']}: {spec['threads_large_why']}"),
        ("memory", f"{spec['ram_total_gib']} GiB, {spec['ram_available_gib']} GiB available"),
        ("disk, current folder", f"{spec['disk_free_gib']} GiB free"),
    ]


def scores_text(scores: dict[str, Any] | None) -> str:
    """ "colour 0.99, motion 0.98"; values that are no numbers appear in --json only."""
    numbers = [(key, value) for key, value in (scores or {}).items() if isinstance(value, int | float)]
    return ", ".join(f"{key} {value:.4g}" for key, value in numbers) or "none recorded"


def table(console: Console, title: str, headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    grid = Table(title=title, title_justify="left")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    if not rows:
        grid.add_row("none", *[""] * (len(headers) - 1))
    console.print(grid)

"""`astro eval`: score arms on a benchmark and store records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from astro_cli.config.errors import RecordError, did_you_mean

SUITES = ("shapes",)
SHOWN = ("vq", "mq", "ta", "color", "shape", "size", "motion", "speed", "background", "texture", "throughput")


def evaluate(
    suite: Annotated[str, typer.Argument(help="Benchmark: shapes.")],
    arms: Annotated[list[str], typer.Option("--arm", "-a", help="Packaged base, run folder or weights file; repeatable.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated paired noise seeds; a tuned run is scored at its own training seed.")] = "0",
    prompts: Annotated[int, typer.Option(min=1, help="Held-out prompts.")] = 256,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results"),
) -> None:
    """Score bases and tuned students on held-out prompts with paired noise; what is recorded already is not scored again.

    Example: astro eval shapes --arm shapes/causal_forcing --arm runs/astrolabe_causal_shapes-seed0 --seeds 0
    """
    if suite not in SUITES:
        raise RecordError("eval", suite, "unknown benchmark", hint=did_you_mean(suite, SUITES))
    evaluate_arms(arms, parse_seeds(seeds), prompts, results)


def parse_seeds(text: str) -> list[int]:
    """ "0,1,2" -> [0, 1, 2].

    Raises:
        RecordError: not whole numbers.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise RecordError("--seeds", text, "expected whole numbers separated by commas", hint="for example: --seeds 0,1,2") from error


def evaluate_arms(arms: list[str], seeds: list[int], prompts: int, results: Path) -> None:
    """Score each base at every seed and each tuned run at its own; print the means."""
    from eval.arms import load_arm
    from eval.runner import evaluate_arm, time_arms

    console = Console(stderr=True, highlight=False)
    loaded = [load_arm(name) for name in arms]
    pairs = [(arm, seed) for arm in loaded for seed in (seeds if arm.seed is None else [arm.seed])]
    table = Table("arm", "seed", *SHOWN)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        means = []
        for arm, seed in pairs:
            bar = progress.add_task(f"{arm.name} seed {seed}", total=prompts)
            means.append(evaluate_arm(arm, seed, prompts, results, lambda done, _, bar=bar: progress.update(bar, completed=done)))
        progress.add_task("frames per second", total=None)
        speeds = time_arms(pairs, prompts, results)
    for (arm, seed), found, speed in zip(pairs, means, speeds, strict=True):
        row = found | {"throughput": speed}
        table.add_row(arm.name, str(seed), *(f"{row[key]:.3f}" for key in SHOWN))
    Console(width=None if console.is_terminal else 160).print(table)

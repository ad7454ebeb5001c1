"""Threads on a busy machine: `python -m bench.threads [--suite]`. Starts and ends the processes that make it busy.

Two questions: from which size on two threads beat one, alone and beside one busy process per core (where `core.threads`
has its constant from); and how much longer `astro sample`, an epoch of RL and, with --suite, `make test` take beside
these processes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from rich.console import Console
from rich.table import Table

from astro_cli.core import threads

LAYERS = (
    (48, 128),
    (48, 512),
    (256, 512),
    (1024, 512),
    (1024, 1024),
    (2048, 1024),
    (2048, 1536),
)  # (tokens, width) of a square linear layer
REPEATS, LAYER_S = 5, 0.2  # timings of a layer, seconds of each
PROMPT = "a large red circle moves right slowly over a gray plain background"
VIDEOS, FRAMES = 8, 9
LIMIT = (
    2.2  # times the idle wall time that is accepted beside one busy process per core: a fair share of the cores is 2
)


class Spent(NamedTuple):
    """Seconds of a command: on the clock, and of CPU in all its processes."""

    wall: float
    cpu: float


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that compute without end."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@torch.no_grad()
def layer_seconds(tokens: int, width: int, count: int) -> float:
    """Median wall seconds of one linear layer on `count` threads."""
    threads.use(count)
    x, layer = torch.randn(tokens, width), torch.nn.Linear(width, width)
    repeats = max(1, round(LAYER_S / _timed(lambda: layer(x), 1)))
    return statistics.median(_timed(lambda: layer(x), repeats) for _ in range(REPEATS))


def _timed(work: Callable[[], object], repeats: int) -> float:
    work()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - began) / repeats


def layers(cores: int) -> Iterator[tuple[str, ...]]:
    """(layer, MFLOP, speed of all cores over one thread alone, and beside one busy process per core)."""
    before = torch.get_num_threads()
    for tokens, width in LAYERS:
        ratios = []
        for others in (0, cores):
            with busy(others):
                one, all_ = (layer_seconds(tokens, width, count) for count in (1, cores))
            ratios.append(f"{one / all_:.2f}")
        yield f"{tokens} x {width}", f"{2 * tokens * width**2 / 1e6:.1f}", *ratios
    threads.use(before)


def spent(command: list[str]) -> Spent:
    """Run a command to its end.

    Raises:
        CalledProcessError: it failed.
    """
    began, before = time.perf_counter(), _children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return Spent(time.perf_counter() - began, _children() - before)


def _children() -> float:
    times = psutil.Process(os.getpid()).cpu_times()
    return times.children_user + times.children_system


def commands(folder: Path, suite: bool) -> dict[str, Callable[[int], list[str]]]:
    """The commands to time, by name; each takes the number of the run, for a folder of its own."""
    astro = [sys.executable, "-m", "astro_cli"]
    rl = ["rl", "--recipe", "astrolabe_causal_shapes", "--steps", "2", "--set", 'runtime.device="cpu"']
    timed: dict[str, Callable[[int], list[str]]] = {
        f"sample, {VIDEOS} videos of {FRAMES} frames": lambda run: [
            *astro,
            "sample",
            *[PROMPT] * VIDEOS,
            "--frames",
            str(FRAMES),
            "--device",
            "cpu",
            "--out",
            str(folder / f"sample{run}"),
        ],
        "rl, 2 epochs": lambda run: [*astro, *rl, "--out", str(folder / f"rl{run}")],
    }
    return timed | {"the suite": lambda run: ["make", "test"]} if suite else timed


def slowdowns(cores: int, suite: bool) -> Iterator[tuple[str, ...]]:
    """(command, its seconds alone, beside one busy process, beside one per core, the last over the first)."""
    with tempfile.TemporaryDirectory() as name:
        for what, command in commands(Path(name), suite).items():
            runs = []
            for run, others in enumerate((0, 1, cores)):
                with busy(others):
                    runs.append(spent(command(run)))
            ratio = runs[-1].wall / runs[0].wall
            shown = [f"{each.wall:.1f} s ({each.cpu:.1f} s of CPU)" for each in runs]
            yield what, *shown, f"{ratio:.2f}", "yes" if ratio <= LIMIT else "no"


def main() -> None:
    console, cores = Console(width=160), threads.cores()
    load = os.getloadavg()[0]
    console.print(
        f"{cores} cores, load before {load:.1f}" + (": not idle, so the ratios flatter" if load > 0.5 else "")
    )
    grid = Table(
        "tokens x width",
        "MFLOP",
        "alone",
        "beside one busy process per core",
        title=f"a linear layer: speed of {cores} threads over one",
    )
    for row in layers(cores):
        grid.add_row(*row)
    console.print(grid)
    slow = Table(
        "command",
        "alone",
        "beside one busy process",
        "beside one per core",
        "ratio",
        f"<= {LIMIT}",
        title="wall time of commands",
    )
    for row in slowdowns(cores, "--suite" in sys.argv[1:]):
        slow.add_row(*row)
    console.print(slow)


if __name__ == "__main__":
    main()

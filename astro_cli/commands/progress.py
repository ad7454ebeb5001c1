"""The progress bar of training runs, on stderr; one plain line now and then where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn, TimeRemainingColumn

from astro_cli.commands.console import plain_column, plain_console

QUIET_INTERVAL = 20.0  # seconds between lines where there is no terminal
SHOWN = ("reward/total", "student/loss", "codec/psnr", "codec/loss", "critic/loss")


class RunProgress:
    """A `Watcher`: one bar per stage, with rate, time left and the metrics that matter."""

    def __init__(self) -> None:
        self.console = plain_console(stderr=True)
        self.live = sys.stderr.isatty()
        columns = (
            SpinnerColumn(),
            plain_column(),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            plain_column("{task.fields[note]}"),
        )
        self.progress = Progress(*columns, console=self.console, disable=not self.live)
        self.bar: Any = None
        self.works: dict[str, Any] = {}
        self.steps, self.began, self.printed = 0, time.monotonic(), 0.0

    def __enter__(self) -> RunProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def stage(self, name: str, start: int, steps: int) -> None:
        self.steps, self.began, self.name = steps, time.monotonic(), name
        self.bar = self.progress.add_task(name, total=steps, completed=start, note="")

    def step(self, row: dict[str, Any]) -> None:
        note = "  ".join(f"{key} {row[key]:.4g}" for key in SHOWN if key in row) + f"  {row['seconds']:.2f} s/step"
        done = row["step"] + 1
        if "warning" in row:
            self.warn(f"{self.name} step {row['step']}: {row['warning']}")
        self.progress.update(self.bar, completed=done, note=note)
        now = time.monotonic()
        if not self.live and (now - self.printed > QUIET_INTERVAL or done == self.steps):
            self.printed = now
            self.console.print(f"{self.name} {done}/{self.steps}  {now - self.began:.0f} s  {note}")

    def work(self, what: str, done: int, total: int) -> None:
        if what not in self.works:
            self.works[what] = self.progress.add_task(what, total=total, note="")
        self.progress.update(self.works[what], completed=done)
        if not self.live and done >= total:
            self.console.print(f"{what} {done}/{total}")

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", soft_wrap=True)

"""What the figures of all papers share: what they are drawn from, what is missing, and a picture that is still to be
drawn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from astro_cli.training.rundir import RunDir
from eval.records.store import Record

SEEDS = "0,1,2"  # what a study trains


class Missing(NamedTuple):
    """What a picture lacks of which arm, and the command that makes it; no command where none does."""

    what: str
    arm: str
    command: str = ""


class Drawn(NamedTuple):
    """Whether there was anything to show, and what is missing."""

    written: bool
    missing: list[Missing]


class PaperFigure(NamedTuple):
    """A picture to be made: `draw` writes it to a path, unless it has nothing to show."""

    name: str
    draw: Callable[[Path], Drawn]


class Made(NamedTuple):
    """What the figures are drawn from."""

    runs: Path
    records: Sequence[Record]
    results: Path

    def ablate(self, grid: str) -> str:
        """The command that trains and evaluates a grid into these folders."""
        return f"astro ablate {grid} --seeds {SEEDS} --runs {self.runs} --results {self.results}"


def find_runs(runs: Path, recipe: str) -> tuple[list[Path], list[Path]]:
    """A recipe's finished and unfinished runs in a folder, each by seed."""
    named = [
        (int(match[1]), path)
        for path in runs.glob(f"{recipe}-seed*")
        if (match := re.fullmatch(re.escape(recipe) + r"-seed(\d+)", path.name))
    ]
    ordered = [path for _, path in sorted(named)]
    return [path for path in ordered if RunDir(path).finished], [path for path in ordered if not RunDir(path).finished]

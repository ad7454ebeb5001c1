"""The page's training curves: which runs are given, what is drawn, and what changed in numbers.

Draws through `eval.report.figures`.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from astro_cli.config.errors import RecordError
from eval.records.store import Backbone
from eval.renderers.words import seeds
from eval.report import figures, run_files
from eval.report.page import Beside, Fragment, Part, Picture, Section, Text, TextTable

# In the order they are drawn; a stage shows those it logs.
REWARDS = ("reward/total", "reward/vq", "reward/mq", "reward/ta")
LOSSES = ("student/loss", "critic/loss", "codec/loss", "codec/psnr")
RUN_HEAD = ("Run", "Recipe", "Seed", "Recipe hash", "Stages (steps)", "Commit")
HASH_SHOWN = 8
UNLIKE = ("seed", "runtime")  # keys of a recipe in which the runs of one arm may differ
DASHES = {"-": "", "--": "8 4", "-.": "8 3 2 3", ":": "2 3"}  # matplotlib's line styles in SVG
EDGE = 5  # steps averaged at either end of a curve to say in words where it went


@dataclass(frozen=True)
class Run:
    """A training run: its folder's name, recipe, environment and metrics."""

    name: str
    recipe: dict[str, Any]
    recipe_hash: str
    environment: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def stages(self) -> dict[str, int]:
        """Logged steps by stage, in the order they ran."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row["stage"]] = counts.get(row["stage"], 0) + 1
        return counts

    @property
    def identity(self) -> str:
        """What runs that differ in their seed alone share."""
        return json.dumps({key: value for key, value in self.recipe.items() if key not in UNLIKE}, sort_keys=True)

    def stage(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["stage"] == name]


def read_run(folder: Path, backbone: Backbone) -> Run:
    """A run folder, finished or not.

    Raises:
        RecordError: no run folder, a damaged one, one without a logged step, or a run on another backbone.
    """
    if not folder.is_dir():
        raise RecordError(
            "--runs",
            str(folder),
            "no such folder",
            hint="name a run folder, e.g. runs/astrolabe_self_forcing_shapes-seed0",
        )
    if not (folder / "resolved.json").exists():
        raise RecordError("--runs", str(folder), "no run folder: it has no resolved.json")
    resolved = run_files.read_resolved(folder)
    own = resolved["recipe"]["backbone"]
    if own != backbone:
        hint = f"leave it out, or ask for the page of the other backbone with --backbone {own}"
        raise RecordError("--runs", str(folder), f"a run on {own!r}, this page shows {backbone!r}", hint=hint)
    rows = run_files.read_rows(folder, resolved["recipe"])
    if not rows:
        raise RecordError("--runs", str(folder), "no step is logged yet")
    environment = run_files.read_environment(folder)
    return Run(folder.resolve().name, resolved["recipe"], resolved["hash"], environment, rows)


def curves_section(runs: Sequence[Run], folder: Path) -> Section:
    """A table of the runs, then per stage a panel for every reward, or else every loss, it logs.

    Pictures go to `folder`.
    """
    names = _names(runs)
    parts: list[Part] = [TextTable(RUN_HEAD, [_row(run) for run in runs], "Runs")]
    for stage in dict.fromkeys(stage for run in runs for stage in run.stages):
        of_stage = [run for run in runs if stage in run.stages]
        arms: dict[str, list[list[dict[str, Any]]]] = {}
        for run in of_stage:
            arms.setdefault(names[run.identity], []).append(run.stage(stage))
        keys = _keys([row for run in of_stage for row in run.stage(stage)])
        pictures = [_panel(arms, key, folder / f"{stage}-{key.replace('/', '-')}.png") for key in keys]
        parts += [_stage(stage, arms), Beside(pictures) if pictures else Text("This stage logs no reward and no loss.")]
    return Section("Training curves", parts)


def _names(runs: Sequence[Run]) -> dict[str, str]:
    """Identity -> recipe's name; with a recipe hash, as the table of runs has it, where a name stands for several."""
    first = {run.identity: run for run in reversed(runs)}
    shared = [run.recipe["name"] for run in first.values()]
    return {
        identity: run.recipe["name"]
        if shared.count(run.recipe["name"]) == 1
        else f"{run.recipe['name']}, {run.recipe_hash[:HASH_SHOWN]}"
        for identity, run in first.items()
    }


def _stage(name: str, arms: dict[str, list[list[dict[str, Any]]]]) -> Fragment:
    """Heading of a stage, and which line is whose."""
    anchor, title = f"stage-{name}", f"Stage {name}"
    entries = "".join(
        f"<li>{_line(index)}{html.escape(arm)} ({seeds(len(by_seed))})</li>"
        for index, (arm, by_seed) in enumerate(arms.items())
    )
    meaning = f"<p><small>{figures.MEANING}</small></p>" if any(len(by_seed) > 1 for by_seed in arms.values()) else ""
    return Fragment(
        f'<h3 id="{html.escape(anchor)}">{html.escape(title)}</h3>\n<ul class="key">{entries}</ul>{meaning}',
        (anchor, title),
    )


def _line(index: int) -> str:
    color, line = figures.arm_style(index)
    dashes = f' stroke-dasharray="{DASHES[line]}"' if DASHES[line] else ""
    path = f'<line x1="0" y1="4" x2="40" y2="4" stroke="{color}" stroke-width="3"{dashes}></line>'
    return f'<svg width="40" height="8" aria-hidden="true">{path}</svg>'


def _keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    logged = {key for row in rows for key in row}
    return [key for key in REWARDS if key in logged] or [key for key in LOSSES if key in logged]


def _panel(arms: dict[str, list[list[dict[str, Any]]]], key: str, path: Path) -> Picture:
    figures.reward_curves(arms, path, (key,), legend=False)
    title = figures.TITLES.get(key, key)
    changes = [f"{name} {_change(by_seed, key)}" for name, by_seed in arms.items()]
    return Picture(path, f"{title} during training: {'; '.join(changes)}", f"{title}. {'; '.join(changes)}.")


def _change(runs: Sequence[Sequence[dict[str, Any]]], key: str) -> str:
    """What the curve says in words: means of its first and last steps, averaged over seeds."""
    series = []
    for rows in runs:
        if values := [row[key] for row in rows if isinstance(row.get(key), int | float)]:
            series.append(values)
    if not series:
        return figures.NOT_RUN
    edges = [min(EDGE, max(1, len(values) // 2)) for values in series]
    first = mean(mean(values[:edge]) for values, edge in zip(series, edges, strict=True))
    last = mean(mean(values[-edge:]) for values, edge in zip(series, edges, strict=True))
    return f"from {first:.4g} to {last:.4g}"


def _row(run: Run) -> list[object]:
    stages = ", ".join(
        f"{name} ({count} of {run.recipe['stages'][name]['steps']})" for name, count in run.stages.items()
    )
    commit = run.environment["commit"]
    shown = f"`{commit[:HASH_SHOWN]}`{' dirty' if run.environment['dirty'] else ''}" if commit else "unknown"
    return [run.name, run.recipe["name"], run.recipe["seed"], f"`{run.recipe_hash[:HASH_SHOWN]}`", stages, shown]

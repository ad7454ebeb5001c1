"""The page's training curves: which runs are given, what is drawn, and what changed in numbers.

Draws through `eval.report.figures`.
"""

from __future__ import annotations

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
from eval.report.page import Beside, Heading, KeyLine, LineKey, Part, Picture, Section, Text

# In the order they are drawn. A stage shows its gains over the base; one that logs none its rewards, else its losses.
LOSSES = ("student/loss", "critic/loss", "codec/loss", "codec/psnr")
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
    """Per stage a panel for every gain over the base, or else every reward, or else every loss, it logs.

    Pictures go to `folder`.
    """
    names, parts = _names(runs), list[Part]()
    for stage in dict.fromkeys(stage for run in runs for stage in run.stages):
        of_stage = [run for run in runs if stage in run.stages]
        arms: dict[str, list[list[dict[str, Any]]]] = {}
        for run in of_stage:
            arms.setdefault(names[run.identity], []).append(run.stage(stage))
        keys = _keys([row for run in of_stage for row in run.stage(stage)])
        pictures = [_panel(arms, key, folder / f"{stage}-{key.replace('/', '-')}.svg") for key in keys]
        parts += [Heading(f"Stage {stage}", f"stage-{stage}"), _key(arms)]
        parts += [Beside(pictures) if pictures else Text("This stage logs no reward and no loss.")]
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


def _key(arms: dict[str, list[list[dict[str, Any]]]]) -> LineKey:
    """Which line is whose."""
    lines = []
    for index, (arm, by_seed) in enumerate(arms.items()):
        color, line = figures.arm_style(index)
        lines.append(KeyLine(figures.PALETTE.index(color), DASHES[line], f"{arm} ({seeds(len(by_seed))})"))
    return LineKey(lines, figures.MEANING if any(len(by_seed) > 1 for by_seed in arms.values()) else "")


def _keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    logged = {key for row in rows for key in row}
    for keys in (figures.GAINS, figures.REWARDS, LOSSES):
        if own := [key for key in keys if key in logged]:
            return own
    return []


def _panel(arms: dict[str, list[list[dict[str, Any]]]], key: str, path: Path) -> Picture:
    figures.reward_curves(arms, path, (key,), legend=False)
    title = figures.TITLES.get(key, key)
    if key in figures.REWARDS:  # a change of means over other prompts says nothing of the policy
        return Picture(path, f"{title} during training", f"{title}; {figures.NO_BASE}.")
    changes = [f"{name} {_change(by_seed, key)}" for name, by_seed in arms.items()]
    title += ", tuned minus base on the training prompts" if key in figures.GAINS else ""
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

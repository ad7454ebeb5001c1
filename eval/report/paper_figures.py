"""Draws the figures of a paper from runs and records made here: curves, bars and contact sheets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from astro_cli.config.errors import RecordError, did_you_mean
from astro_cli.generate.arm import load_arm
from astro_cli.training.rundir import RunDir
from eval.records.comparable import Cells, matrix
from eval.records.stats import mean_interval
from eval.records.store import Record
from eval.report import figures, sheets
from eval.world.base_rewards import base_rows

WINDOW = (
    11  # epochs of the moving average: an epoch is four prompts, whose difficulty differs more than the policies do
)
REWARDS = ("reward/vq", "reward/mq", "reward/ta", "reward/total")
THIRDS = tuple(f"{metric}{part}" for metric in ("vq", "mq", "ta") for part in ("", "_first_third", "_last_third"))
SEGMENTS = ("vq", "mq", "identity", "ta", *(f"ta_segment_{place}" for place in range(1, 7)))
ATTRIBUTES = (
    "vq",
    "mq",
    "ta",
    "color",
    "size",
    "shape",
    "motion",
    "speed",
    "background",
    "texture",
    "sharpness",
    "smoothness",
    "flicker",
    "identity",
)
BARS = {"attributes": ("shapes", ATTRIBUTES), "long": ("shapes-long", THIRDS), "multi": ("shapes-multi", SEGMENTS)}
SHEETS = {"short": sheets.short_sheet, "long": sheets.long_sheet, "multi": sheets.multi_sheet}


class Curves(NamedTuple):
    """A figure of training curves: a panel per key of metrics.jsonl, an arm per recipe (label -> recipe)."""

    name: str
    keys: tuple[str, ...]
    arms: dict[str, str]
    trained_by: str  # the command that trains what is missing
    standard: str  # the recipe whose run says what the dashed curve is of: base, prompts, clips, weights of the rewards


class Drawn(NamedTuple):
    """Whether there was anything to show, and what is missing, in words."""

    written: bool
    missing: list[str]


class PaperFigure(NamedTuple):
    """A picture to be made: `draw` writes it to a path, unless it has nothing to show."""

    name: str
    draw: Callable[[Path], Drawn]


OURS = "astrolabe_all_shapes"  # the run the ablations vary
FIGURES: dict[str, tuple[Curves, ...]] = {
    "astrolabe": (
        Curves(  # Fig. 7a
            "figure_7a_rewards",
            ("reward/vq", "reward/mq"),
            {"VQ only": "astrolabe_vq_shapes", "MQ only": "astrolabe_mq_shapes", "VQ + MQ + TA": OURS},
            "astro ablate astrolabe-4c",
            OURS,
        ),
        Curves(  # Fig. 7b
            "figure_7b_beta",
            ("reward/vq", "reward/mq"),
            {"beta 1.0": OURS, "beta 0.1": "astrolabe_beta_low_shapes"},
            "astro ablate astrolabe-beta",
            OURS,
        ),
        Curves(  # Fig. 8a
            "figure_8a_kl",
            ("reward/vq", "reward/mq", "reward/ta", "reward/total"),
            {
                "no KL": "astrolabe_no_kl_shapes",
                "uniform, lower": "astrolabe_uniform_low_shapes",
                "uniform, higher": "astrolabe_uniform_high_shapes",
                "selective + EMA": OURS,
            },
            "astro ablate astrolabe-4b",
            OURS,
        ),
        Curves(  # Fig. 8b
            "figure_8b_adaptive",
            ("reward/total", "student/x0_norm"),
            {"without": "astrolabe_x0_shapes", "adaptive": "astrolabe_adaptive_shapes"},
            "astro ablate astrolabe-adaptive",
            OURS,
        ),
    ),
}


def pictures(
    paper: str, pairs: Sequence[tuple[str, str]], runs: Path, records: Sequence[Record], *, with_sheets: bool = True
) -> list[PaperFigure]:
    """Every picture of a paper, in order; none is drawn yet.

    Args:
        pairs: (base, RL recipe) of the study.
        runs: folder of the runs, named `<recipe>-seed<N>`.
        records: for the bars; of the embedded world.

    Raises:
        RecordError: no figures of that paper.
    """
    if paper not in FIGURES:
        raise RecordError("figures", paper, "no figures of this paper", hint=did_you_mean(paper, FIGURES))
    return [
        *(_curves(_figure_5(base, recipe), runs) for base, recipe in pairs),
        *(_curves(figure, runs) for figure in FIGURES[paper]),
        *(_bars(kind, base, recipe, records) for base, recipe in pairs for kind in BARS),
        *(_sheet(kind, base, recipe, runs) for base, recipe in pairs for kind in SHEETS if with_sheets),
    ]


def find_runs(runs: Path, recipe: str) -> tuple[list[Path], list[Path]]:
    """A recipe's finished and unfinished runs in a folder, each by seed."""
    named = [
        (int(match[1]), path)
        for path in runs.glob(f"{recipe}-seed*")
        if (match := re.fullmatch(re.escape(recipe) + r"-seed(\d+)", path.name))
    ]
    ordered = [path for _, path in sorted(named)]
    return [path for path in ordered if RunDir(path).finished], [path for path in ordered if not RunDir(path).finished]


def _figure_5(base: str, recipe: str) -> Curves:
    """Fig. 5 for one base."""
    return Curves(
        f"figure_5_{_stem(base)}", REWARDS, {f"RL on {_stem(base)}": recipe}, f"astro rl --recipe {recipe}", recipe
    )


@cache
def _base_curve(run: Path, seed: int, epochs: int) -> list[dict[str, Any]]:
    """What the base of a run scores by its rewards on the prompts that such a run with this seed sees."""
    return base_rows(RunDir(run).recipe(), seed, epochs)


def _seed_of(run: Path) -> int:
    return int(run.name.rpartition("-seed")[2])


def _curves(figure: Curves, runs: Path) -> PaperFigure:
    def draw(path: Path) -> Drawn:
        missing, arms, epochs = [], {}, dict[int, int]()
        for label, recipe in figure.arms.items():
            finished, started = find_runs(runs, recipe)
            arms[label] = [figures.read_metrics(RunDir(run).metrics) for run in finished]
            for run, rows in zip(finished, arms[label], strict=True):
                epochs[_seed_of(run)] = max(len(rows), epochs.get(_seed_of(run), 0))
            missing += [f"{run.name} is not finished" for run in started]
            missing += [] if finished else [f"{recipe}-seed* ({figure.trained_by})"]
            if finished:
                logged = set[str]().union(*arms[label][0])
                missing += [f"{finished[0].name} logs no {key}" for key in figure.keys if key not in logged]
        standard, _ = find_runs(runs, figure.standard)
        missing += (
            []
            if standard or figure.standard in figure.arms.values()
            else [f"the base's curve: {figure.standard}-seed* (astro rl --recipe {figure.standard})"]
        )
        if any(arms.values()):
            base = [_base_curve(standard[0], seed, count) for seed, count in sorted(epochs.items())] if standard else []
            figures.reward_curves(arms, path, figure.keys, WINDOW, base)
        return Drawn(any(arms.values()), missing)

    return PaperFigure(f"{figure.name}.png", draw)


def _bars(kind: str, base: str, recipe: str, records: Sequence[Record]) -> PaperFigure:
    benchmark, metrics = BARS[kind]

    def draw(path: Path) -> Drawn:
        cells, missing, arms = Cells(records, "shapes"), [], {}
        for label, arm in (("base", f"{_stem(base)}_shapes"), ("tuned", recipe)):
            by_metric = {metric: cells.find(arm, metric, benchmark) for metric in metrics}
            arms[label] = {
                metric: _bounds(matrix(by_seed.values())) if by_seed else None for metric, by_seed in by_metric.items()
            }
            missing += (
                []
                if any(by_metric.values())
                else [f"records of {arm} on {benchmark} (astro eval {benchmark} --arm ...)"]
            )
        has_any = any(value for values in arms.values() for value in values.values())
        if has_any:
            figures.attribute_bars(arms, path)
        return Drawn(has_any, missing)

    return PaperFigure(f"bars_{kind}_{_stem(base)}.png", draw)


def _bounds(scores_SP) -> figures.Bounds:
    return mean_interval(scores_SP)[:3]


def _sheet(kind: str, base: str, recipe: str, runs: Path) -> PaperFigure:
    def draw(path: Path) -> Drawn:
        finished, _ = find_runs(runs, recipe)
        if not finished:
            return Drawn(False, [f"{recipe}-seed* (astro rl --recipe {recipe})"])
        SHEETS[kind]((load_arm(base), load_arm(str(finished[0]))), path)
        return Drawn(True, [])

    return PaperFigure(f"sheet_{kind}_{_stem(base)}.png", draw)


def _stem(base: str) -> str:
    return base.rpartition("/")[2]

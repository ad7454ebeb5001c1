"""Draws the figures of a paper from runs and records made here: curves, differences and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astro_cli.config.errors import RecordError, did_you_mean
from astro_cli.generate.arm import load_arm
from astro_cli.training.rundir import RunDir
from eval.records.comparable import Cells, matrix, paired
from eval.records.stats import mean_interval, paired_difference
from eval.report import arm_panels, differences_figure, figures, forcing_figures, sheets
from eval.report.differences_figure import Better, Effect, Panel
from eval.report.figure_parts import Drawn, Made, Missing, PaperFigure, find_runs
from eval.report.training_records import curve_rows

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
SUITES = {"attributes": ("shapes", ATTRIBUTES), "long": ("shapes-long", THIRDS), "multi": ("shapes-multi", SEGMENTS)}
SUITE_TITLES = {
    "attributes": "Short videos",
    "long": "30 s videos",
    "multi": "60 s videos of six prompts",
}
SHEETS = {"short": sheets.short_sheet, "long": sheets.long_sheet, "multi": sheets.multi_sheet}


NO_CURVE = "No training curve of these runs is kept."
PAIRED = "Held-out prompts by the oracle, as in the tables; paired by prompt and seed; 95 % intervals, {seeds}."
OF_RUNS = "Shown is what the runs measured of themselves; 95 % intervals over {seeds}."
NO_GAIN = "gains over the base, which older runs did not log, of"
NAMES = {"self_forcing": "Self-Forcing", "longlive": "LongLive", "causal_forcing": "Causal-Forcing"}


class Curves(NamedTuple):
    """A figure of training curves: keys of metrics.jsonl, an arm per recipe (label -> recipe).

    Attributes:
        ends: panels of what is shown where no curve is kept: metrics of records.
        grid: `astro ablate` trains and evaluates the arms with it.
        base: the stem of the base the arms are compared with.
    """

    name: str
    keys: tuple[str, ...]
    arms: dict[str, str]
    ends: tuple[str, ...]
    grid: str
    base: str


ALL = "astrolabe_all_shapes"  # the run the ablations vary
VQ_MQ = ("vq", "mq")
FIGURES: dict[str, tuple[Curves, ...]] = {
    "astrolabe": (
        Curves(  # Fig. 7a
            "figure_7a_rewards",
            ("gain/vq", "gain/mq"),
            {"VQ only": "astrolabe_vq_shapes", "MQ only": "astrolabe_mq_shapes", "VQ + MQ + TA": ALL},
            VQ_MQ,
            "astrolabe-4c",
            "causal_forcing",
        ),
        Curves(  # Fig. 7b
            "figure_7b_beta",
            ("gain/vq", "gain/mq"),
            {"beta 1.0": ALL, "beta 0.1": "astrolabe_beta_low_shapes"},
            VQ_MQ,
            "astrolabe-beta",
            "causal_forcing",
        ),
        Curves(  # Fig. 8a
            "figure_8a_kl",
            ("gain/vq", "gain/mq", "gain/ta", "gain/total"),
            {
                "no KL": "astrolabe_no_kl_shapes",
                "uniform, lower": "astrolabe_uniform_low_shapes",
                "uniform, higher": "astrolabe_uniform_high_shapes",
                "selective + EMA": ALL,
            },
            ("vq", "mq", "ta"),
            "astrolabe-4b",
            "causal_forcing",
        ),
        Curves(  # Fig. 8b
            "figure_8b_adaptive",
            ("gain/total", "student/x0_norm"),
            {"without": "astrolabe_x0_shapes", "adaptive": "astrolabe_adaptive_shapes"},
            ("reward_change", "x0_norm_growth"),
            "astrolabe-adaptive",
            "causal_forcing",
        ),
    ),
}
# The grid that trains and evaluates a paper's pairs of base and tuned student, and what training is called.
PAIRS = {
    "astrolabe": ("astrolabe-bases", "RL"),
    "reward-forcing": ("reward-forcing-1", "Reward Forcing"),
    "delta-forcing": ("delta-forcing", "Delta Forcing"),
    "teleboost": ("teleboost-4", "BPGO"),
    "aapt": ("aapt", "AAPT"),
}
# Measures of a run itself: title, better, where nothing has changed, what the axis shows.
OF_A_RUN: dict[str, tuple[str, Better, float, str]] = {
    "reward_change": ("Training reward", "up", 0.0, "last epochs \u2212 first"),
    "x0_norm_growth": ("Norm of the predicted x0", "none", 1.0, "last epochs / first"),
}


def pictures(
    paper: str, pairs: Sequence[tuple[str, str]], made: Made, *, with_sheets: bool = True
) -> list[PaperFigure]:
    """Every picture of a paper, in order; none is drawn yet.

    Args:
        pairs: (base, RL recipe) of the study.
        made: runs, named `<recipe>-seed<N>`, and records of the embedded world.

    Raises:
        RecordError: no figures of that paper.
    """
    if paper not in PAIRS:
        raise RecordError("figures", paper, "no figures of this paper", hint=did_you_mean(paper, PAIRS))
    own = [_figure_5(paper, base, recipe) for base, recipe in pairs] if paper in FIGURES else []
    return [
        *(_curves(figure, made) for figure in (*own, *FIGURES.get(paper, ()))),
        *forcing_figures.pictures(paper, made),
        *(_differences(paper, kind, base, recipe, made) for base, recipe in pairs for kind in SUITES),
        *(_sheet(paper, kind, base, recipe, made) for base, recipe in pairs for kind in SHEETS if with_sheets),
    ]


def _figure_5(paper: str, base: str, recipe: str) -> Curves:
    """Fig. 5 for one base."""
    stem = _stem(base)
    keys = ("gain/vq", "gain/mq", "gain/ta", "gain/total")
    return Curves(
        f"figure_5_{stem}", keys, {f"RL on {NAMES.get(stem, stem)}": recipe}, ("vq", "mq", "ta"), PAIRS[paper][0], stem
    )


def _curves(figure: Curves, made: Made) -> PaperFigure:
    def draw(path: Path) -> Drawn:
        cells, missing, arms = Cells(made.records, "shapes"), list[Missing](), {}
        for label, recipe in figure.arms.items():
            arms[label], lacks = _rows(recipe, made, figure.grid)
            missing += lacks
        logged = set[str]().union(*(rows[0] for seeds in arms.values() for rows in seeds if rows))
        if any(arms.values()):
            keys = _with_logged(figure.keys, logged)
            if keys != figure.keys:
                missing += [Missing(NO_GAIN, arm) for arm in figure.arms.values()]
            ends = _ends(figure, keys, cells)
            arm_panels.arm_panels(arms, path, keys, ends if keys == figure.keys else {})
            return Drawn(True, missing)
        panels = _end_panels(figure, cells)
        has_any = any(value is not None for panel in panels for value in panel.rows.values())
        if has_any:
            shown = OF_RUNS if set(figure.ends) <= OF_A_RUN.keys() else PAIRED
            note = f"{NO_CURVE} {shown.format(seeds=_seeds_of(figure, cells))}"
            differences_figure.paired_differences(panels, path, note)
        return Drawn(has_any, missing)

    return PaperFigure(f"{figure.name}.png", draw)


def _ends(figure: Curves, keys: Sequence[str], cells: Cells) -> dict[tuple[str, str], Effect]:
    """By arm and key what the tables have of the gain, where they have it."""
    ends = {}
    for label, recipe in figure.arms.items():
        for key in keys:
            effect = _paired(cells, figure.base, recipe, key.removeprefix("gain/"), "shapes")
            if effect is not None:
                ends[label, key] = effect
    return ends


def _with_logged(keys: tuple[str, ...], logged: set[str]) -> tuple[str, ...]:
    """The keys; of runs that log no gain their rewards instead."""
    if any(key in logged for key in keys if key.startswith("gain/")):
        return keys
    return tuple(key.replace("gain/", "reward/") for key in keys)


def _rows(recipe: str, made: Made, grid: str) -> tuple[list[list[dict[str, Any]]], list[Missing]]:
    """The logged epochs of every seed: of the finished runs, else of the records; and what is missing."""
    finished, started = find_runs(made.runs, recipe)
    missing = [Missing("the end of", run.name, made.ablate(grid)) for run in started]
    if finished:
        return [figures.read_metrics(RunDir(run).metrics) for run in finished], missing
    kept = curve_rows(made.records, recipe)
    return kept, missing if kept or started else [Missing("training curves of", recipe, made.ablate(grid))]


def _end_panels(figure: Curves, cells: Cells) -> list[Panel]:
    """What every arm ended with, a panel per metric; of one arm one panel, a row per metric."""
    panels = [_end_panel(figure, metric, cells) for metric in figure.ends]
    if len(figure.arms) > 1:
        return panels
    (label,) = figure.arms
    return [Panel(label, {panel.title: panel.rows[label] for panel in panels})]


def _end_panel(figure: Curves, metric: str, cells: Cells) -> Panel:
    """Every arm's difference from the base or, of a measure of the run itself, its mean."""
    if metric not in OF_A_RUN:
        rows = {label: _paired(cells, figure.base, recipe, metric, "shapes") for label, recipe in figure.arms.items()}
        return Panel(figures.SCORES[metric], rows)
    title, better, reference, axis = OF_A_RUN[metric]
    rows = {}
    for label, recipe in figure.arms.items():
        by_seed = cells.find(recipe, metric, "shapes")
        rows[label] = Effect(*mean_interval(matrix(by_seed.values()))[:3]) if by_seed else None
    return Panel(title, rows, better, reference, axis)


def _seeds_of(figure: Curves, cells: Cells) -> str:
    counts = {len(cells.find(recipe, figure.ends[0], "shapes")) for recipe in figure.arms.values()} - {0}
    return " or ".join(figures.seeds_text(count) for count in sorted(counts))


def _paired(cells: Cells, base: str, recipe: str, metric: str, benchmark: str) -> Effect | None:
    """A recipe's arm minus its base on the same prompts and seeds."""
    before, after = (cells.find(arm, metric, benchmark) for arm in (f"{base}_shapes", recipe))
    pair = paired(before, after) if before and after else None
    if pair is None:
        return None
    mean, low, high, _ = paired_difference(*pair)
    return Effect(mean, low, high, float(np.nanmean(pair[0])))


def _differences(paper: str, kind: str, base: str, recipe: str, made: Made) -> PaperFigure:
    benchmark, metrics = SUITES[kind]

    def draw(path: Path) -> Drawn:
        cells = Cells(made.records, "shapes")
        rows = {_words(metric): _paired(cells, _stem(base), recipe, metric, benchmark) for metric in metrics}
        lacks = []
        for arm in (f"{_stem(base)}_shapes", recipe):
            if not any(cells.find(arm, metric, benchmark) for metric in metrics):
                lacks.append(Missing(f"records on {benchmark} of", arm, made.ablate(PAIRS[paper][0])))
        has_any = any(value is not None for value in rows.values())
        if has_any:
            seeds = figures.seeds_text(len(cells.find(recipe, metrics[0], benchmark)))
            stem = _stem(base)
            title = f"{SUITE_TITLES[kind]}: {PAIRS[paper][1]} on {NAMES.get(stem, stem)}"
            differences_figure.paired_differences([Panel(title, rows)], path, PAIRED.format(seeds=seeds))
        return Drawn(has_any, lacks)

    return PaperFigure(f"differences_{kind}_{_stem(base)}.png", draw)


def _sheet(paper: str, kind: str, base: str, recipe: str, made: Made) -> PaperFigure:
    def draw(path: Path) -> Drawn:
        finished, _ = find_runs(made.runs, recipe)
        if not finished:
            return Drawn(False, [Missing("finished runs of", recipe, made.ablate(PAIRS[paper][0]))])
        SHEETS[kind]((load_arm(base), load_arm(str(finished[0]))), path)
        return Drawn(True, [])

    return PaperFigure(f"sheet_{kind}_{_stem(base)}.png", draw)


def _words(metric: str) -> str:
    """`ta_segment_1` as "TA segment 1"."""
    first, *others = metric.split("_")
    return " ".join([first.upper() if first in figures.SCORES else first, *others])


def _stem(base: str) -> str:
    return base.rpartition("/")[2]

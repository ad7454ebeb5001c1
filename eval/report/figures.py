"""Draws training curves: what a run has gained over its base, or what else its metrics.jsonl logs.

Colours are those that `eval.report.charts` knows for a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from astro_cli.config.errors import RecordError
from astro_cli.config.files import described
from eval.records import jsonl
from eval.report import charts

Row = Mapping[str, Any]  # one line of metrics.jsonl
LineStyle = Literal["-", "--", "-.", ":"]
Bounds = tuple[float, float, float]  # mean, low, high

NOT_RUN = "not run"
MEANING = "thick: mean over seeds; thin: each seed"
# Epochs of the moving average: an epoch is four prompts, whose difficulty differs more than the policies do.
WINDOW = 11
# Okabe and Ito's palette, which stays distinct under the common colour-vision deficiencies; line styles tell the arms
# apart without colour.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[LineStyle, ...] = ("-", "--", "-.", ":")
BASE_COLOR = "#9A9CA5"  # base recedes: gray
QUIET, GRID = "#666666", "#CCCCCC"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
}
DPI = 144
PANEL_IN = (4.8, 3.2)  # two beside each other fill a page, one a phone
LEGEND_IN = 0.7  # height
MAX_COLUMNS = 2
LEGEND_COLUMNS = 2  # names of arms are long
ROUND = (1, 2, 5, 10)  # ticks are these times a power of ten
TICKS = 5  # at most, between the ends of an axis
GAINS = ("gain/total", "gain/vq", "gain/mq", "gain/ta")
REWARDS = ("reward/total", "reward/vq", "reward/mq", "reward/ta")
SCORES = {
    "total": "Total reward (weighted sum)",
    "vq": "VQ: visual quality",
    "mq": "MQ: motion quality",
    "ta": "TA: text alignment",
}
TITLES = {
    **{f"{kind}/{key}": title for kind in ("gain", "reward") for key, title in SCORES.items()},
    "student/x0_norm": "Norm of the predicted x0",
    "student/loss": "Student loss",
    "critic/loss": "Critic loss",
    "codec/loss": "Codec loss",
    "codec/psnr": "Codec PSNR (dB)",
}
NO_BASE = "no base logged: prompts differ between epochs"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl; a last line that a killed run left torn is ignored.

    Raises:
        RecordError: no such file, or damage elsewhere.
    """
    rows = []
    for number, row in jsonl.read(Path(path)):
        if not isinstance(row, dict):
            raise RecordError(path, f"line {number}", f"found {described(row)}, expected an object of metrics")
        rows.append(row)
    return rows


def reward_curves(
    runs: Mapping[str, Sequence[Sequence[Row]]],
    path: str | Path,
    keys: Sequence[str] | None = None,
    window: int = WINDOW,
    legend: bool = True,
) -> None:
    """A picture with a panel per key: each arm's seeds thin, their mean thick.

    Args:
        keys: of metrics.jsonl. By default the gains over the base, on the same prompts and noise; where a run logs
            none, the rewards.
        window: epochs of a centred moving average over every seed's curve; the axis says so. 1 draws the curves as
            they are.
        legend: which line is whose, in the figure; a page with a panel per picture says it once (`arm_style`).
    """
    keys = keys or logged_scores([rows for seeds in runs.values() for rows in seeds])
    columns = min(MAX_COLUMNS, len(keys))
    lines = -(-len(keys) // columns)
    with style.context(["default", STYLE]):
        figure = Figure(
            figsize=(PANEL_IN[0] * columns, PANEL_IN[1] * lines + (LEGEND_IN if legend else 0)),
            layout="constrained",
            dpi=DPI,
        )
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for panel, key in zip(panels, keys, strict=False):
            _curve_panel(panel, key, runs, window)
        for panel in panels[len(keys) :]:
            panel.set_axis_off()
        if legend:
            _curve_legend(figure, runs, columns)
        save(figure, path)


def logged_scores(runs: Sequence[Sequence[Row]]) -> tuple[str, ...]:
    """The gains over the base, where every run logs one; else the rewards."""
    logged = [rows[0].keys() & set(GAINS) for rows in runs if rows]
    return GAINS if logged and all(logged) else REWARDS


def _curve_panel(panel: Axes, key: str, runs: Mapping[str, Sequence[Sequence[Row]]], window: int) -> None:
    curves = [smooth_curves(seeds, key, window) for seeds in runs.values()]
    drawn = [draw_arm(panel, arm_style(index), seeds) for index, seeds in enumerate(curves)]
    panel.set_title(TITLES.get(key, key), loc="left")
    silent = [arm for (arm, seeds), own in zip(runs.items(), drawn, strict=True) if seeds and not own]
    if not any(drawn):
        say_not_run(panel)
        return
    if silent:
        panel.set_title(f"not logged: {', '.join(silent)}", loc="right", fontsize=9, color=QUIET)
    elif key.startswith("reward/"):
        panel.text(1, 1.01, NO_BASE, transform=panel.transAxes, ha="right", va="bottom", fontsize=8, color=QUIET)
        panel.set_title(TITLES.get(key, key), loc="left", pad=16)
    panel.set_xlabel(_epochs(key, runs, window))
    panel.set_ylabel(unit_of(key))
    if key.startswith("gain/"):
        draw_base(panel)
    round_ticks(panel)
    panel.margins(x=0.02)


def _epochs(key: str, runs: Mapping[str, Sequence[Sequence[Row]]], window: int) -> str:
    """The name of the x axis; it says what was averaged."""
    is_rl = any("reward/total" in row for seeds in runs.values() for rows in seeds for row in rows[:1])
    unit = "epoch" if is_rl or key.startswith(("reward/", "gain/")) else "step"
    return f"{unit} (moving average over {window})" if window > 1 else unit


def unit_of(key: str) -> str:
    """What the y axis counts; scores have no unit."""
    return "tuned \u2212 base" if key.startswith("gain/") else "mean reward" if key.startswith("reward/") else ""


def draw_base(panel: Axes) -> None:
    """The zero line, which is the base."""
    panel.axhline(0, color=BASE_COLOR, linewidth=1.4, zorder=1.5)
    panel.annotate(
        "base",
        (1, 0),
        xycoords=("axes fraction", "data"),
        xytext=(2, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=QUIET,
        annotation_clip=False,
    )


def round_ticks(panel: Axes, ticks: int = TICKS) -> None:
    panel.xaxis.set_major_locator(MaxNLocator(ticks, steps=ROUND, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(ticks, steps=ROUND))
    panel.grid(color=GRID, linewidth=0.6)


def smooth_curves(seeds: Sequence[Sequence[Row]], key: str, window: int) -> list[dict[int, float]]:
    """Of the seeds that have the key."""
    return [_smooth(series, window) for rows in seeds if (series := _series(rows, key))]


def _series(rows: Sequence[Row], key: str) -> dict[int, float]:
    """Epoch -> value. The epochs of a second stage that has the key follow those of the first."""
    values: dict[int, float] = {}
    stage, offset, last = None, 0, -1
    for row in rows:
        if not isinstance(row.get(key), int | float):
            continue
        if row.get("stage") != stage:
            stage, offset = row.get("stage"), last + 1
        last = offset + row["step"]
        values[last] = float(row[key])
    return values


def _smooth(series: dict[int, float], window: int) -> dict[int, float]:
    """Means over `window` epochs around each, over fewer at the two ends."""
    epochs, values, reach = list(series), list(series.values()), window // 2
    return {epoch: float(np.mean(values[max(0, i - reach) : i + reach + 1])) for i, epoch in enumerate(epochs)}


def draw_arm(panel: Axes, look: tuple[str, LineStyle], seeds: list[dict[int, float]]) -> bool:
    """Draw an arm's curves in a colour and line; False if no seed has any."""
    if not seeds:
        return False
    color, line = look
    if len(seeds) > 1:
        for series in seeds:
            panel.plot(list(series), list(series.values()), color=color, linewidth=0.9, alpha=0.5)
    shared, values_SE = _together(seeds)
    panel.plot(
        shared, values_SE.mean(0), color=color, linestyle=line, linewidth=2.6, marker="o" if len(shared) == 1 else ""
    )
    return True


def _together(seeds: list[dict[int, float]]) -> tuple[list[int], np.ndarray]:
    """The epochs that all seeds have, and their values; a mean over changing seeds would jump."""
    shared = sorted(set.intersection(*map(set, seeds)))
    return shared, np.array([[*map(series.__getitem__, shared)] for series in seeds])


def arm_style(index: int) -> tuple[str, LineStyle]:
    """Colour and line of the arm in this place."""
    return PALETTE[index % len(PALETTE)], LINES[index % len(LINES)]


def _curve_legend(figure: Figure, runs: Mapping[str, Sequence[Sequence[Row]]], columns: int) -> None:
    """As wide as the panels: one name a line where there is one column."""
    handles = [Line2D([], [], color=c, linestyle=s, linewidth=2.6) for c, s in map(arm_style, range(len(runs)))]
    labels = [f"{arm} ({seeds_text(len(seeds))})" for arm, seeds in runs.items()]
    title = MEANING if any(len(seeds) > 1 for seeds in runs.values()) else None
    if handles:
        columns = min(len(handles), columns, LEGEND_COLUMNS)
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=columns,
            frameon=False,
            title=title,
            title_fontsize=11,
            handlelength=3,
        )


def seeds_text(count: int) -> str:
    return NOT_RUN if count == 0 else f"{count} seed" if count == 1 else f"{count} seeds"


def say_not_run(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center", va="center", color=QUIET)


def save(figure: Figure, path: str | Path) -> None:
    """As PNG or SVG; equal figures are equal files."""
    charts.save(figure, path)

"""Draws figures: reward curves over training, read from metrics.jsonl, and measured attributes with their intervals."""

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
MEANING = "thick: mean over seeds; thin: each seed; shaded: lowest to highest seed"
# Okabe and Ito's palette, which stays distinct under the common colour-vision deficiencies; line styles tell the arms
# apart without colour.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[LineStyle, ...] = ("-", "--", "-.", ":")
BASE_COLOR = "#9A9CA5"  # base recedes: gray
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
DPI = 144
PANEL_IN = (4.8, 3.2)  # two beside each other fill a page, one a phone
LEGEND_IN = 0.7  # height
MAX_COLUMNS = 2
LEGEND_COLUMNS = 2  # names of arms are long
BAR_IN = 0.27  # height of a bar and its share of the gap
SCORE_MAX = 1.0  # most attributes are shares, so the axis shows the whole of 0..1
TITLES = {
    "reward/total": "Total reward (weighted sum)",
    "reward/vq": "VQ: visual quality",
    "reward/mq": "MQ: motion quality",
    "reward/ta": "TA: text alignment",
    "student/x0_norm": "Norm of the predicted x0",
    "student/loss": "Student loss",
    "critic/loss": "Critic loss",
    "codec/loss": "Codec loss",
    "codec/psnr": "Codec PSNR (dB)",
}


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
    keys: Sequence[str] = ("reward/total", "reward/vq", "reward/mq", "reward/ta"),
    window: int = 1,
    base: Sequence[Sequence[Row]] = (),
    legend: bool = True,
) -> None:
    """A PNG with a panel per key: each arm's seeds thin, their mean thick, the range from lowest to highest seed
    shaded.

    Args:
        window: epochs of a centred moving average over every seed's curve; the legend says so. 1 draws the curves as
            they are.
        base: what the untuned base scores on the same prompts, a seed each: their mean, a dashed gray curve.
        legend: which line is whose, in the figure; a page with a panel per picture says it once (`arm_style`).
    """
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
            _curve_panel(panel, key, runs, window, base)
        for panel in panels[len(keys) :]:
            panel.set_axis_off()
        if legend:
            _curve_legend(figure, runs, columns, window, bool(base))
        _save(figure, path)


def _curve_panel(
    panel: Axes, key: str, runs: Mapping[str, Sequence[Sequence[Row]]], window: int, base: Sequence[Sequence[Row]]
) -> None:
    curves = [_smooth_curves(seeds, key, window) for seeds in runs.values()]
    levels = _smooth_curves(base, key, window)
    if levels and any(curves):
        shared, values_SE = _together(levels)
        panel.plot(shared, values_SE.mean(0), color=BASE_COLOR, linestyle="--", linewidth=1.6)
    drawn = [_draw_arm(panel, index, seeds) for index, seeds in enumerate(curves)]
    panel.set_title(TITLES.get(key, key), loc="left")
    silent = [arm for (arm, seeds), own in zip(runs.items(), drawn, strict=True) if seeds and not own]
    if silent and any(drawn):
        panel.set_title(f"not logged: {', '.join(silent)}", loc="right", fontsize=9, color="#666666")
    is_rl = any("reward/total" in row for seeds in runs.values() for rows in seeds for row in rows[:1])
    panel.set_xlabel("epoch" if is_rl or key.startswith("reward/") else "step")
    panel.set_ylabel("mean reward (no unit)" if key.startswith("reward/") else "value")
    if not any(drawn):
        _say_not_run(panel)
        return
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.margins(x=0.02)
    panel.grid(alpha=0.25)


def _smooth_curves(seeds: Sequence[Sequence[Row]], key: str, window: int) -> list[dict[int, float]]:
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


def _draw_arm(panel: Axes, index: int, seeds: list[dict[int, float]]) -> bool:
    """Draw an arm's curves; False if no seed has any."""
    if not seeds:
        return False
    color, line = arm_style(index)
    if len(seeds) > 1:
        for series in seeds:
            panel.plot(list(series), list(series.values()), color=color, linewidth=0.8, alpha=0.55)
    shared, values_SE = _together(seeds)
    panel.fill_between(shared, values_SE.min(0), values_SE.max(0), color=color, alpha=0.15, linewidth=0)
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


def _curve_legend(
    figure: Figure, runs: Mapping[str, Sequence[Sequence[Row]]], columns: int, window: int, has_base: bool
) -> None:
    """As wide as the panels: one name a line where there is one column."""
    handles = [Line2D([], [], color=c, linestyle=s, linewidth=2.6) for c, s in map(arm_style, range(len(runs)))]
    labels = [f"{arm} ({_seeds(len(seeds))})" for arm, seeds in runs.items()]
    notes = [MEANING] if any(len(s) > 1 for s in runs.values()) else []
    notes += [f"every curve is a moving average over {window} epochs"] if window > 1 else []
    notes += ["dashed gray: the base, on the same prompts"] if has_base else []
    title = "\n".join(notes) or None
    if title is not None and columns == 1:
        title = title.replace("; shaded", ";\nshaded")
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


def _seeds(count: int) -> str:
    return NOT_RUN if count == 0 else f"{count} seed" if count == 1 else f"{count} seeds"


def attribute_bars(measured: Mapping[str, Mapping[str, Bounds | None]], path: str | Path) -> None:
    """A PNG of grouped bars, a group per metric and a bar per arm (the first is the base), with intervals as error
    bars.
    """
    metrics = list(dict.fromkeys(metric for values in measured.values() for metric in values))
    slots = len(measured) + 1  # a bar's height of space between groups
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(8, max(2.6, BAR_IN * slots * len(metrics) + 1.3)), layout="constrained", dpi=DPI)
        axes = figure.subplots()
        for index, arm in enumerate(measured):
            _draw_bars(axes, index, arm, [measured[arm].get(metric) for metric in metrics], slots)
        _label_bars(axes, metrics, slots, _axis_limits(measured))
        if not metrics:
            _say_not_run(axes)
        else:
            figure.legend(loc="outside upper center", ncols=min(len(measured), LEGEND_COLUMNS), frameon=False)
        _save(figure, path)


def _draw_bars(axes: Axes, index: int, arm: str, values: Sequence[Bounds | None], slots: int) -> None:
    color = BASE_COLOR if index == 0 else PALETTE[(index - 1) % len(PALETTE)]
    places = np.arange(len(values)) * slots + index
    bounds = np.array([value or (0.0, 0.0, 0.0) for value in values]).reshape(-1, 3)
    mean, reach = bounds[:, 0], np.abs(bounds[:, 1:] - bounds[:, :1]).T
    axes.barh(places, mean, height=0.9, color=color, label=arm)
    drawn = [i for i, value in enumerate(values) if value is not None]
    axes.errorbar(
        mean[drawn], places[drawn], xerr=reach[:, drawn], fmt="none", ecolor="#222222", elinewidth=1.4, capsize=3
    )
    for place, value in zip(places, values, strict=True):
        edge, text = (max(value[2], 0.0), _number(value[0])) if value else (0.0, NOT_RUN)
        axes.annotate(text, (edge, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=10)


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _axis_limits(measured: Mapping[str, Mapping[str, Bounds | None]]) -> tuple[float, float]:
    bounds = [value for values in measured.values() for value in values.values() if value is not None]
    low, high = min([0.0, *(b[1] for b in bounds)]), max([SCORE_MAX, *(b[2] for b in bounds)])
    return low - (0.03 * (high - low) if low < 0 else 0), high + 0.12 * (
        high - low
    )  # room for the number after the bar


def _label_bars(axes: Axes, metrics: Sequence[str], slots: int, limits: tuple[float, float]) -> None:
    axes.set_yticks(np.arange(len(metrics)) * slots + (slots - 2) / 2, [metric.replace("_", " ") for metric in metrics])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(metrics) * slots - 1.2, -0.8)  # the first metric on top
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set_xlim(*limits)
    axes.set_xlabel("score (mean; whiskers: 95 % interval)")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def _say_not_run(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center", va="center", color="#666666")


def _save(figure: Figure, path: str | Path) -> None:
    """As PNG or SVG; equal figures are equal files."""
    charts.save(figure, path)

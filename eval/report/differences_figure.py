"""Draws paired differences with their intervals: a row per metric or arm, a panel per question.

Colours are those that `eval.report.charts` knows for a dark page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eval.renderers.words import fixed, interval_decimals
from eval.report import figures
from eval.report.figures import BASE_COLOR, DPI, GRID, NOT_RUN, PALETTE, QUIET, ROUND, STYLE

AXIS = "tuned \u2212 base"
BETTER, WORSE, OPEN = PALETTE[0], PALETTE[1], BASE_COLOR
WORDS = {
    BETTER: "better",
    WORSE: "worse",
    OPEN: "undecided: the interval reaches both sides",
    QUIET: "neither direction is better",
}
ROW_IN, PANEL_FRAME_IN, FRAME_IN = 0.34, 1.05, 0.6  # heights: a row, what is around a panel's rows, legend and note
WIDTH_IN = 8.2
NOTE_LETTERS = 118  # of a line as wide as the picture
Better = Literal["up", "down", "none"]


class Effect(NamedTuple):
    """A mean with its 95 % interval; `base` is the base's own mean, where there is one."""

    mean: float
    low: float
    high: float
    base: float | None = None


class Panel(NamedTuple):
    """Rows of one question: label -> difference, None where it was not measured. `reference` is where nothing has
    changed.
    """

    title: str
    rows: Mapping[str, Effect | None]
    better: Better = "up"
    reference: float = 0.0
    axis: str = AXIS


def paired_differences(panels: Sequence[Panel], path: str | Path, note: str = "") -> None:
    """A picture of panels below each other: per row a point with a whisker, and its numbers at the right.

    A point is filled where its interval leaves the reference out. Panels with one axis share it.
    """
    heights = [ROW_IN * max(1, len(panel.rows)) + PANEL_FRAME_IN for panel in panels]
    with style.context(["default", STYLE, {"font.size": 11, "axes.titlesize": 12}]):
        figure = Figure(figsize=(WIDTH_IN, sum(heights) + FRAME_IN), layout="constrained", dpi=DPI)
        axes = figure.subplots(
            len(panels),
            squeeze=False,
            sharex=len({panel.axis for panel in panels}) == 1,
            gridspec_kw={"height_ratios": [len(panel.rows) + 1 for panel in panels]},
        )[:, 0]
        for own, panel in zip(axes, panels, strict=True):
            _draw_panel(own, panel)
        _legend(figure, panels, note)
        figures.save(figure, path)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.axvline(panel.reference, color=BASE_COLOR, linewidth=1.4, zorder=1.5)
    for row, value in enumerate(panel.rows.values()):
        if value is not None:
            _draw_row(axes, row, value, _color(value, panel))
    places, count = range(len(panel.rows)), len(panel.rows)
    axes.set_ylim(count - 0.4, -0.6)  # the first row on top
    axes.set_yticks(places, list(panel.rows))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=True)
    axes.spines["left"].set_visible(False)
    axes.set_title(panel.title, loc="left", pad=18)
    axes.set_xlabel(panel.axis)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.margins(x=0.08)
    numbers = axes.twinx()
    numbers.set_ylim(axes.get_ylim())
    numbers.set_yticks(places, [_numbers(value, panel) for value in panel.rows.values()], fontsize=10, color=QUIET)
    numbers.tick_params(axis="y", length=0)
    numbers.spines[:].set_visible(False)
    has_base = any(value is not None and value.base is not None for value in panel.rows.values())
    head = "base     difference [95 % interval]" if has_base else "mean [95 % interval]"
    axes.annotate(
        head, (1, 1), xycoords="axes fraction", xytext=(4, 4), textcoords="offset points", fontsize=10, color=QUIET
    )


def _draw_row(axes: Axes, row: int, value: Effect, color: str) -> None:
    fill = "white" if color == OPEN else color
    axes.plot([value.low, value.high], [row, row], color=color, linewidth=2.2, solid_capstyle="round")
    axes.plot(value.mean, row, "o", markersize=7, color=color, markerfacecolor=fill, markeredgewidth=2)


def _color(value: Effect, panel: Panel) -> str:
    if panel.better == "none":
        return QUIET
    if value.low <= panel.reference <= value.high:
        return OPEN
    return BETTER if (value.mean > panel.reference) == (panel.better == "up") else WORSE


def _numbers(value: Effect | None, panel: Panel) -> str:
    """`0.741   +0.032 [+0.003, +0.061]`: the base, the difference and its interval."""
    if value is None:
        return NOT_RUN
    is_signed = panel.reference == 0
    digits = interval_decimals(value.low, value.high, signed=is_signed)
    mean, low, high = (fixed(number, digits, signed=is_signed) for number in value[:3])
    base = "" if value.base is None else f"{fixed(value.base, 3)}   "
    return f"{base}{mean} [{low}, {high}]".replace("-", "\u2212")


def _legend(figure: Figure, panels: Sequence[Panel], note: str) -> None:
    """What the colours mean, as far as they occur, and the note."""
    colors = {_color(value, panel) for panel in panels for value in panel.rows.values() if value is not None}
    shown = [color for color in WORDS if color in colors]
    handles = []
    for color in shown:
        fill = "white" if color == OPEN else color
        handles.append(Line2D([], [], color=color, marker="o", markerfacecolor=fill, markeredgewidth=2, linewidth=2.2))
    if handles:
        names = [WORDS[color] for color in shown]
        figure.legend(handles, names, loc="outside upper left", ncols=len(shown), frameon=False, fontsize=10)
    if note:
        figure.supxlabel("\n".join(textwrap.wrap(note, NOTE_LETTERS)), fontsize=9, color=QUIET, x=0.01, ha="left")

"""Draws what several arms gained over one base: a panel per arm and score, each with the end that the table shows.

Colours are those that `eval.report.charts` knows for a dark page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.report import figures
from eval.report.differences_figure import Effect
from eval.report.figures import DPI, QUIET, STYLE, TITLES, WINDOW, Row

PANEL_IN = (2.9, 2.3)
FRAME_IN = 0.9  # height of titles and note
END_SHARE = 0.09  # of the epochs: how far behind the last one the end stands
ENDS_NOTE = (
    "thin: each seed; thick: their mean, a moving average over {window} epochs. Behind the line: the difference on "
    "held-out prompts, by the oracle, as the tables have it, with its 95 % interval"
)
NO_ENDS_NOTE = "thin: each seed; thick: their mean, a moving average over {window} epochs"


def arm_panels(
    arms: Mapping[str, Sequence[Sequence[Row]]],
    path: str | Path,
    keys: Sequence[str],
    ends: Mapping[tuple[str, str], Effect],
    window: int = WINDOW,
) -> None:
    """A picture with a row per key of metrics.jsonl and a column per arm; of one arm, two keys a row.

    Panels of one key share their axis.

    Args:
        ends: by arm and key, the paired difference on held-out prompts.
        window: epochs of a centred moving average over every seed's curve.
    """
    is_one = len(arms) == 1
    lines, columns = (-(-len(keys) // 2), min(2, len(keys))) if is_one else (len(keys), len(arms))
    with style.context(["default", STYLE, {"font.size": 10, "axes.titlesize": 11}]):
        figure = Figure(
            figsize=(PANEL_IN[0] * columns * (1.3 if is_one else 1), PANEL_IN[1] * lines + FRAME_IN),
            layout="constrained",
            dpi=DPI,
        )
        grid = figure.subplots(lines, columns, squeeze=False, sharex=not is_one, sharey="none" if is_one else "row")
        places = [(key, arm) for key in keys for arm in arms]
        for place, (panel, (key, arm)) in enumerate(zip(grid.ravel(), places, strict=False)):
            column = place % columns
            _draw(panel, key, list(arms).index(arm), arms[arm], ends.get((arm, key)), window)
            title = TITLES.get(key, key) if is_one else f"{arm} ({figures.seeds_text(len(arms[arm]))})"
            if is_one or place < columns:
                panel.set_title(title, loc="left")
            if not is_one and column == 0:
                panel.set_ylabel(f"{TITLES.get(key, key)}\n{figures.unit_of(key)}".strip())
            elif is_one and column == 0:
                panel.set_ylabel(figures.unit_of(key))
            if place >= len(places) - columns:
                panel.set_xlabel("epoch")
        for panel in grid.ravel()[len(places) :]:
            panel.set_axis_off()
        note = (ENDS_NOTE if ends else NO_ENDS_NOTE).format(window=window)
        note += f". Rewards: {figures.NO_BASE}" if any(key.startswith("reward/") for key in keys) else ""
        title = f"{next(iter(arms))} ({figures.seeds_text(len(next(iter(arms.values()))))})" if is_one else ""
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        figure.supxlabel(_wrapped(note, columns * (1.3 if is_one else 1)), fontsize=9, color=QUIET, x=0.01, ha="left")
        figures.save(figure, path)


def _draw(panel: Axes, key: str, index: int, seeds: Sequence[Sequence[Row]], end: Effect | None, window: int) -> None:
    curves = figures.smooth_curves(seeds, key, window)
    color, _ = figures.arm_style(index)
    if not figures.draw_arm(panel, (color, "-"), curves):
        panel.text(
            0.5,
            0.5,
            figures.NOT_RUN if not seeds else "not logged",
            transform=panel.transAxes,
            ha="center",
            color=QUIET,
        )
    figures.round_ticks(panel, 4)
    if key.startswith("gain/"):
        figures.draw_base(panel)
    if end is not None and curves:
        last = max(max(series) for series in curves)
        behind = last * (1 + END_SHARE) + 1
        panel.axvline((last + behind) / 2, color=QUIET, linewidth=0.8, linestyle=":")
        panel.plot([behind, behind], [end.low, end.high], color=color, linewidth=2.2)
        panel.plot(behind, end.mean, "o", color=color, markersize=6)


def _wrapped(note: str, columns: float) -> str:
    """As wide as the picture."""
    return "\n".join(textwrap.wrap(note, int(46 * columns)))

"""Writes a figure of matplotlib as PNG, or as SVG whose colours follow the reader's light or dark page.

Equal figures are equal files: no date, no version, no random id.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from astro_cli.generate.media import written_whole

# The colours of the figures (`eval.report.figures`) -> the same on a dark page. Light ones keep 3 : 1 to it.
ON_DARK = {
    "#000000": "#e8e9ed",
    "#222222": "#e8e9ed",
    "#666666": "#a9adb9",
    "#b0b0b0": "#4a4f5c",
    "#cccccc": "#4a4f5c",
    "#0072b2": "#4da6de",
    "#d55e00": "#f08a4b",
    "#009e73": "#35c49a",
    "#cc79a7": "#e29ac4",
    "#e69f00": "#f2b84b",
    "#56b4e9": "#8ccbf2",
    "#9a9ca5": "#9a9ca5",
}
TEXT = "#000000"  # of letters, which name no colour of their own
PAPER = "#ffffff"  # behind the axes: the page's own
FONT: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "astro"}  # text stays text, in the reader's font


def save(figure: Figure, path: str | Path) -> None:
    """Write to a .png or .svg file.

    Raises:
        OutputError: the file cannot be written.
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: expected .png or .svg")
    with written_whole(path) as temporary:
        if path.suffix == ".png":
            FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})
        else:
            temporary.write_text(_svg(figure), encoding="utf-8")


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    with rc_context(FONT):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    used = [TEXT, *(color for color in ON_DARK if color in text and color != TEXT)]
    for color in used:
        text = text.replace(color, f"var({_name(color)})")
    text = text.replace(f"fill: {PAPER}", "fill: none").replace("'DejaVu Sans'", "'DejaVu Sans', system-ui, sans-serif")
    return re.sub(r"(<svg [^>]*>)", lambda opening: f"{opening[1]}\n<style>{_colors(used)}</style>", text, count=1)


def _name(color: str) -> str:
    return f"--c{color[1:]}"


def _colors(used: list[str]) -> str:
    light = " ".join(f"{_name(color)}: {color};" for color in used)
    dark = " ".join(f"{_name(color)}: {ON_DARK[color]};" for color in used)
    letters = f"text {{ fill: var({_name(TEXT)}); }}"
    return f"{letters} :root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"

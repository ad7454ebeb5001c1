"""Draws the figures of Reward Forcing and Delta Forcing: speed against the attention window, the path of latents, and
the gate over a video.

Colours are those that `eval.report.charts` knows for a dark page.
Dimensions: F latent frame, K chunk, T frame, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from astro_cli.generate.arm import Arm, load_arm
from astro_cli.generate.media import to_uint8
from astro_cli.recipe import load_recipe
from eval.records.comparable import Cells, matrix
from eval.records.stats import mean_interval
from eval.report import figures
from eval.report.figure_parts import Drawn, Made, Missing, PaperFigure, find_runs
from eval.report.figures import DPI, PALETTE, QUIET, STYLE

PANEL_IN = (3.1, 3.0)
STRIP_IN = (9.0, 5.2)
WINDOWS = ("reward_forcing_shapes", "reward_forcing_window_15_shapes", "reward_forcing_window_21_shapes")
WINDOW_GRID, DELTA_GRID = "reward-forcing-1", "delta-forcing"
PATHS = {
    "LongLive": "shapes/longlive",
    "Reward Forcing": "reward_forcing_shapes",
    "long tuning": "long_tuning_shapes",
    "Delta Forcing": "delta_forcing_shapes",
}
GATED = "delta_forcing_shapes"
ENTRY = 0  # of the interactive suite's prompt set: the video that is shown
CALIBRATED = 8  # entries whose videos set the gate's threshold


class GateCurves(NamedTuple):
    """w, rho and C (K,) of the chunks of one video but the first, and the first new frame of each."""

    gate: np.ndarray
    rho: np.ndarray
    continuity: np.ndarray
    starts: tuple[int, ...]


def pictures(paper: str, made: Made) -> list[PaperFigure]:
    """A paper's own pictures; none of other papers."""
    drawing = {
        "reward-forcing": {"figure_6_window_speed.png": _window_speed},
        "delta-forcing": {"figure_5_latent_paths.png": _latent_paths, "gate_over_video.png": _gate_over_video},
    }
    return [PaperFigure(name, partial(draw, made)) for name, draw in drawing.get(paper, {}).items()]


# --- Reward Forcing, Figure 6


def _window_speed(made: Made, path: Path) -> Drawn:
    """Frames per second of a video that fills every window, against the window."""
    cells, missing, points = Cells(made.records, "shapes"), list[Missing](), {}
    for recipe in WINDOWS:
        by_seed = cells.find(recipe, "throughput_streaming", "shapes")
        if not by_seed:
            missing.append(Missing("frames per second of", recipe, "astro reproduce reward-forcing"))
            continue
        window = load_recipe(recipe).cache.window
        points[window] = mean_interval(matrix(by_seed.values()))[:3]
    if points:
        draw_window_speed(points, path)
    return Drawn(bool(points), missing)


def draw_window_speed(points: dict[int | None, tuple[float, float, float]], path: Path) -> None:
    """Mean frames per second with its interval, by window in latent frames."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(4.8, 3.2), layout="constrained", dpi=DPI)
        panel = figure.subplots()
        windows = sorted(window or 0 for window in points)
        means, lows, highs = zip(*(points[window] for window in windows), strict=True)
        panel.plot(windows, means, color=PALETTE[0], linewidth=1.6, marker="o")
        panel.vlines(windows, lows, highs, color=PALETTE[0], linewidth=2.6)
        panel.set_xticks(windows)
        panel.set(xlabel="attention window (latent frames)", ylabel="frames per second", ylim=(0, None))
        panel.grid(color=figures.GRID, linewidth=0.6)
        figures.save(figure, path)


# --- Delta Forcing, Figures 5 and 6


def _latent_paths(made: Made, path: Path) -> Drawn:
    """One video's latents by every arm, each on its own first two principal directions."""
    arms, missing = _arms(made)
    if arms:
        from eval.world.shapes_interactive import projected, switch_of

        paths = {}
        for label, arm in arms.items():
            points_F2, share = projected(_video(arm)[0])
            paths[label] = points_F2, share, switch_of(arm)
        draw_latent_paths(paths, path)
    return Drawn(bool(arms), missing)


def _arms(made: Made) -> tuple[dict[str, Arm], list[Missing]]:
    """Packaged bases, and the first finished run of each recipe."""
    arms, missing = dict[str, Arm](), list[Missing]()
    for label, source in PATHS.items():
        if "/" in source:
            arms[label] = load_arm(source)
        elif finished := find_runs(made.runs, source)[0]:
            arms[label] = load_arm(str(finished[0]))
        else:
            missing.append(Missing("finished runs of", source, made.ablate(DELTA_GRID)))
    return (arms if len(arms) > 1 else {}), missing


def _video(arm: Arm) -> torch.Tensor:
    """Latents (1, F, C, H, W) of the entry that is shown, its second prompt the event alone."""
    from eval.world.oracle_scores import noise_seeds
    from eval.world.shapes_interactive import BETWEEN, prompt_set, switched

    first, biased, _, _ = prompt_set(ENTRY + 1)[ENTRY].split(BETWEEN)
    return switched(arm, [first], [biased], noise_seeds(0, ENTRY + 1)[ENTRY:])


def draw_latent_paths(paths: dict[str, tuple[np.ndarray, float, int]], path: Path) -> None:
    """A panel per arm: points (F, 2) in the order of frames, the two events in two colours.

    Args:
        paths: arm -> points, the share of the variance that they hold, and the first frame of the second event.
    """
    with style.context(["default", STYLE, {"font.size": 9, "axes.titlesize": 10}]):
        figure = Figure(figsize=(PANEL_IN[0] * len(paths), PANEL_IN[1]), layout="constrained", dpi=DPI)
        panels = figure.subplots(1, len(paths), squeeze=False, sharex=True, sharey=True)[0]
        for panel, (label, (points_F2, share, switch)) in zip(panels, paths.items(), strict=True):
            panel.plot(*points_F2.T, color=QUIET, linewidth=0.8, zorder=1)
            for place, (marker, event) in enumerate((("o", points_F2[:switch]), ("s", points_F2[switch:]))):
                name = ("before the switch", "after it")[place]
                panel.scatter(*event.T, s=22, marker=marker, color=PALETTE[place], label=name, zorder=2)
            panel.plot(*points_F2[switch - 1 : switch + 1].T, color=PALETTE[3], linewidth=2.4, label="switch")
            panel.set_title(f"{label} ({share:.0%} of the variance)", loc="left")
            panel.set_aspect("equal", adjustable="box")
        panels[0].legend(frameon=False, fontsize=8)
        panels[0].set(xlabel="first direction", ylabel="second direction")
        figures.save(figure, path)


# --- the gate over a video


def _gate_over_video(made: Made, path: Path) -> Drawn:
    finished, _ = find_runs(made.runs, GATED)
    if not finished:
        return Drawn(False, [Missing("finished runs of", GATED, made.ablate(DELTA_GRID))])
    arm = load_arm(str(finished[0]))
    curves, frames_THWC, switch = gate_of_video(arm)
    draw_gate(curves, frames_THWC, switch, path)
    return Drawn(True, [])


def gate_of_video(arm: Arm) -> tuple[GateCurves, np.ndarray, int]:
    """The gate of the entry that is shown, a picture (H, W, 3) of the first new frame of each chunk, and the latent
    frame of the switch. mu and s are calibrated on the first entries of the suite.
    """
    from eval.world import gate
    from eval.world.oracle_scores import noise_seeds
    from eval.world.shapes_interactive import BETWEEN, prompt_set, switch_of, switched

    entries = [entry.split(BETWEEN) for entry in prompt_set(CALIBRATED)]
    first, biased = [entry[0] for entry in entries], [entry[1] for entry in entries]
    seeds, switch = noise_seeds(0, CALIBRATED), switch_of(arm)
    latents = switched(arm, first, biased, seeds)
    moved = gate.deltas(arm, gate.teacher_of(arm), latents, (first, biased), switch, seeds)
    w_BK = moved.gates(*gate.threshold(moved.calm(switch)))
    frames_TCHW = arm.backbone.decode(latents[ENTRY : ENTRY + 1])[0].cpu()
    shown = [arm.backbone.num_frames(start) for start in (0, *moved.starts)]
    pictures_KHWC = frames_TCHW[shown].permute(0, 2, 3, 1).numpy()
    w_K, rho_K, continuity_K = (each[ENTRY].numpy() for each in (w_BK, moved.rho_BK, moved.continuity_BK))
    return GateCurves(w_K, rho_K, continuity_K, moved.starts), pictures_KHWC, switch


def draw_gate(curves: GateCurves, pictures_KHWC: np.ndarray, switch: int | Sequence[int], path: Path) -> None:
    """The first frame of every chunk above w, rho and C per chunk, a line where the prompt switches.

    Args:
        pictures_KHWC: of every chunk, the first among them.
        switch: latent frames of the switches.
    """
    switches = [switch] if isinstance(switch, int) else list(switch)
    starts = (0, *curves.starts)
    with style.context(["default", STYLE, {"font.size": 10, "axes.titlesize": 10}]):
        figure = Figure(figsize=STRIP_IN, layout="constrained", dpi=DPI)
        rows = figure.subplots(4, 1, sharex=True, height_ratios=(1.3, 1, 1, 1))
        step = (starts[-1] - starts[0]) / max(1, len(starts) - 1)
        for start, picture in zip(starts, to_uint8(pictures_KHWC), strict=True):
            rows[0].imshow(picture, extent=(start - 0.45 * step, start + 0.45 * step, 0, 1), aspect="auto", zorder=2)
        rows[0].set(yticks=[], ylim=(0, 1))
        series = (
            (curves.gate, "gate w", (0, 1.05)),
            (curves.rho, "rho", (0, None)),
            (curves.continuity, "C", (0, None)),
        )
        for row, (values, name, limits), color in zip(rows[1:], series, PALETTE, strict=False):
            row.plot(curves.starts, values, color=color, marker="o", linewidth=1.8)
            row.set(ylabel=name, ylim=limits)
            row.grid(color=figures.GRID, linewidth=0.6)
        for row in rows:
            _mark(row, switches)
        rows[0].set_title("first frame of every chunk; dashed: the prompt switches", loc="left")
        rows[-1].set(xlabel="first new latent frame of the chunk", xlim=(-0.6 * step, starts[-1] + 0.6 * step))
        figures.save(figure, path)


def _mark(panel: Axes, switches: Sequence[int]) -> None:
    for frame in switches:
        panel.axvline(frame, color=PALETTE[1], linewidth=1.6, linestyle="--", zorder=3)

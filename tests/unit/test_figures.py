"""Figures: which numbers are drawn, and what is said where there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from astro_cli.config.errors import RecordError
from eval.report import figures
from eval.report.figures import NOT_RUN, PALETTE, attribute_bars, read_metrics, reward_curves


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, as matplotlib's objects."""
    kept: list[Figure] = []
    save: Callable[[Figure, str | Path], None] = figures._save

    def keep(figure: Figure, path: str | Path) -> None:
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    return kept


def rows(values: list[float], key: str = "reward/vq", stage: str = "rl") -> list[dict]:
    return [{"stage": stage, "step": step, key: value} for step, value in enumerate(values)]


# --- metrics.jsonl


def test_a_torn_last_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = [{"stage": "rl", "step": 0, "reward/vq": 0.5}, {"stage": "rl", "step": 1, "reward/vq": 0.6}]
    path.write_text("".join(json.dumps(row) + "\n" for row in whole) + '{"stage": "rl", "ste')
    assert read_metrics(path) == whole
    path.write_bytes(path.read_bytes() + b"\xc3")  # torn inside a letter
    assert read_metrics(path) == whole
    path.write_bytes(path.read_bytes() + b"\n")  # a line that has its end is not torn
    with pytest.raises(RecordError, match="line 3"):
        read_metrics(path)


def test_damage_elsewhere_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": \n{"step": 2}\n')
    with pytest.raises(RecordError, match="line 2"):
        read_metrics(path)
    path.write_text("{}\n3\n{}\n")
    with pytest.raises(RecordError, match="line 2"):
        read_metrics(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_metrics(tmp_path / "metrics.jsonl") == []


# --- curves


def test_seeds_thin_mean_thick_range_shaded(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"rl": [rows([0.0, 1.0, 2.0]), rows([2.0, 3.0, 7.0])]}, tmp_path / "curves.png", keys=("reward/vq",))
    panel = drawn[0].axes[0]
    *thin, thick = panel.lines
    assert [list(line.get_ydata()) for line in thin] == [[0, 1, 2], [2, 3, 7]]
    assert list(thick.get_xdata()) == [0, 1, 2]
    assert list(thick.get_ydata()) == [1, 2, 4.5]  # (0+2)/2, (1+3)/2, (2+7)/2
    assert thick.get_linewidth() > 2 * thin[0].get_linewidth()
    assert thick.get_color() == thin[0].get_color() == PALETTE[0]
    corners = panel.collections[0].get_paths()[0].vertices
    for corner in ((0, 0), (0, 2), (2, 2), (2, 7)):  # lowest and highest seed at the first and last epoch
        assert (np.asarray(corners) == corner).all(1).any()
    assert panel.get_xlabel() == "epoch"
    assert panel.get_ylabel() == "mean reward (no unit)"
    assert panel.get_title(loc="left") == "VQ: visual quality"


def test_the_mean_ends_with_the_shortest_seed(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"rl": [rows([0.0, 1.0, 2.0]), rows([2.0, 3.0])]}, tmp_path / "curves.png", keys=("reward/vq",))
    *_, thick = drawn[0].axes[0].lines
    assert list(thick.get_ydata()) == [1, 2]


def test_one_seed_has_no_thin_line_and_no_range_in_the_legend(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"rl": [rows([0.0, 1.0])]}, tmp_path / "curves.png", keys=("reward/vq",))
    assert len(drawn[0].axes[0].lines) == 1
    legend = drawn[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["rl (1 seed)"]
    assert legend.get_title().get_text() == ""


def test_arms_differ_in_colour_and_line(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"a": [rows([0.0, 1.0])], "b": [rows([1.0, 0.0])]}, tmp_path / "curves.png", keys=("reward/vq",))
    first, second = drawn[0].axes[0].lines
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()


def test_a_moving_average_is_centred_and_shorter_at_the_ends(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"rl": [rows([0.0, 3.0, 6.0, 0.0])]}, tmp_path / "curves.png", keys=("reward/vq",), window=3)
    (line,) = drawn[0].axes[0].lines
    assert list(line.get_ydata()) == [1.5, 3, 3, 3]  # (0+3)/2, (0+3+6)/3, (3+6+0)/3, (6+0)/2
    assert "moving average over 3 epochs" in drawn[0].legends[0].get_title().get_text()


def test_the_base_is_a_dashed_curve_where_its_score_is_known(tmp_path: Path, drawn: list[Figure]) -> None:
    keys = ("reward/vq", "student/x0_norm")
    run = [{"stage": "rl", "step": step, "reward/vq": 0.5, "student/x0_norm": 1.0} for step in range(2)]
    base = [[{"stage": "rl", "step": step, "reward/vq": level + step} for step in range(2)] for level in (0.2, 0.3)]
    reward_curves({"rl": [run]}, tmp_path / "curves.png", keys=keys, base=base)
    rewards, norms = drawn[0].axes
    assert list(rewards.lines[0].get_ydata()) == [0.25, 1.25]  # the mean of its seeds
    assert rewards.lines[0].get_linestyle() == "--"
    assert len(norms.lines) == 1
    assert "dashed gray: the base" in drawn[0].legends[0].get_title().get_text()


def test_an_arm_that_does_not_log_a_key_is_named(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves(
        {"VQ only": [rows([0.1, 0.2])], "MQ only": [rows([0.3, 0.4], "reward/mq")]},
        tmp_path / "c.png",
        keys=("reward/vq", "reward/mq"),
    )
    assert [panel.get_title(loc="right") for panel in drawn[0].axes] == ["not logged: MQ only", "not logged: VQ only"]


def test_rows_without_the_key_and_later_stages(tmp_path: Path, drawn: list[Figure]) -> None:
    """Other stages' rows are skipped; a second stage with rewards follows the first instead of folding back over it."""
    run = [*rows([9.0], key="codec/loss", stage="codec"), *rows([0.1, 0.2]), *rows([0.3, 0.4], stage="long")]
    reward_curves({"rl": [run]}, tmp_path / "curves.png", keys=("reward/vq",))
    (line,) = drawn[0].axes[0].lines
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("runs", [{}, {"rl": []}, {"rl": [rows([0.5])]}], ids=["no arm", "no seed", "no such key"])
def test_a_panel_without_numbers_says_so(tmp_path: Path, drawn: list[Figure], runs: dict) -> None:
    reward_curves(runs, tmp_path / "curves.png", keys=("reward/mq",))
    panel = drawn[0].axes[0]
    assert [text.get_text() for text in panel.texts] == [NOT_RUN]
    assert not len(panel.get_xticks())


def test_four_panels_make_a_png_of_legible_size(tmp_path: Path, drawn: list[Figure]) -> None:
    run = [{"stage": "rl", "step": s, **{f"reward/{k}": s / 10 for k in ("total", "vq", "mq", "ta")}} for s in range(5)]
    reward_curves({"rl": [run, run]}, tmp_path / "curves.png")
    assert len(drawn[0].axes) == 4
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width >= 1200
        assert image.height >= 900


# --- bars


def test_bars_show_means_intervals_and_gaps(tmp_path: Path, drawn: list[Figure]) -> None:
    base = {"color": (0.8, 0.7, 0.95), "motion_direction": (0.5, 0.4, 0.6)}
    attribute_bars({"base": base, "tuned": {"color": (0.9, 0.85, 0.92)}}, tmp_path / "bars.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["color", "motion direction"]
    assert [bar.get_width() for bar in axes.patches] == [0.8, 0.5, 0.9, 0.0]
    assert [text.get_text() for text in axes.texts] == ["0.800", "0.500", "0.900", NOT_RUN]
    reaches = [segment[:, 0].tolist() for lines in axes.collections for segment in lines.get_segments()]
    assert np.allclose(reaches, [[0.7, 0.95], [0.4, 0.6], [0.85, 0.92]])
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 1
    first, second = axes.patches[0], axes.patches[2]
    assert first.get_y() < second.get_y()  # downwards: base over tuned
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert first.get_facecolor() != second.get_facecolor()


def test_bars_of_other_scales_fit(tmp_path: Path, drawn: list[Figure]) -> None:
    attribute_bars({"base": {"vq": (-0.2, -0.3, -0.1), "psnr": (31.0, 30.0, 32.0)}}, tmp_path / "bars.png")
    low, high = drawn[0].axes[0].get_xlim()
    assert low < -0.3
    assert high > 32


def test_no_measurement_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    attribute_bars({}, tmp_path / "bars.png")
    assert [text.get_text() for text in drawn[0].axes[0].texts] == [NOT_RUN]


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    data = []
    for _ in range(2):
        attribute_bars({"base": {"color": (0.8, 0.7, 0.9)}}, tmp_path / "bars.png")
        reward_curves({"rl": [rows([0.0, 1.0])]}, tmp_path / "curves.png", keys=("reward/vq",))
        data.append([(tmp_path / name).read_bytes() for name in ("bars.png", "curves.png")])
    assert data[0] == data[1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bars.png", "curves.png"]

"""Figures: which numbers are drawn, and what is said where there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from astro_cli.config.errors import RecordError
from eval.report import figures
from eval.report.arm_panels import arm_panels
from eval.report.differences_figure import BETTER, OPEN, QUIET, WORDS, WORSE, Effect, Panel, paired_differences
from eval.report.figures import NOT_RUN, PALETTE, read_metrics, reward_curves


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, as matplotlib's objects."""
    kept: list[Figure] = []
    save: Callable[[Figure, str | Path], None] = figures.save

    def keep(figure: Figure, path: str | Path) -> None:
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "save", keep)
    return kept


def rows(values: list[float], key: str = "gain/vq", stage: str = "rl") -> list[dict]:
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


def curves_of(panel: Axes) -> list[Line2D]:
    """The lines but the zero line, which spans the axes."""
    return [line for line in panel.lines if list(line.get_xdata()) != [0, 1] or line.get_color() in PALETTE]


def test_seeds_thin_mean_thick_and_the_base_is_zero(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"rl": [rows([0.0, 1.0, 2.0]), rows([2.0, 3.0, 7.0])]}, tmp_path / "c.png", ("gain/vq",), window=1)
    panel = drawn[0].axes[0]
    *thin, thick = curves_of(panel)
    assert [list(line.get_ydata()) for line in thin] == [[0, 1, 2], [2, 3, 7]]
    assert list(thick.get_xdata()) == [0, 1, 2]
    assert list(thick.get_ydata()) == [1, 2, 4.5]  # (0+2)/2, (1+3)/2, (2+7)/2
    assert thick.get_linewidth() > 2 * thin[0].get_linewidth()
    assert thick.get_color() == thin[0].get_color() == PALETTE[0]
    assert not panel.collections  # no bands
    (zero,) = [line for line in panel.lines if line.get_color() == figures.BASE_COLOR]
    assert list(zero.get_ydata()) == [0, 0]
    assert [text.get_text() for text in panel.texts] == ["base"]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("epoch", "tuned \u2212 base")
    assert panel.get_title(loc="left") == "VQ: visual quality"


def test_the_mean_ends_with_the_shortest_seed(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves(
        {"rl": [rows([0.0, 1.0, 2.0]), rows([2.0, 3.0])]}, tmp_path / "curves.png", keys=("gain/vq",), window=1
    )
    *_, thick = curves_of(drawn[0].axes[0])
    assert list(thick.get_ydata()) == [1, 2]


def test_one_seed_has_no_thin_line_and_no_range_in_the_legend(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"rl": [rows([0.0, 1.0])]}, tmp_path / "curves.png", keys=("gain/vq",), window=1)
    assert len(curves_of(drawn[0].axes[0])) == 1
    legend = drawn[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["rl (1 seed)"]
    assert legend.get_title().get_text() == ""


def test_arms_differ_in_colour_and_line(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves(
        {"a": [rows([0.0, 1.0])], "b": [rows([1.0, 0.0])]}, tmp_path / "curves.png", keys=("gain/vq",), window=1
    )
    first, second = curves_of(drawn[0].axes[0])
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()


def test_a_moving_average_is_centred_and_shorter_at_the_ends(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves({"rl": [rows([0.0, 3.0, 6.0, 0.0])]}, tmp_path / "curves.png", keys=("gain/vq",), window=3)
    (line,) = curves_of(drawn[0].axes[0])
    assert list(line.get_ydata()) == [1.5, 3, 3, 3]  # (0+3)/2, (0+3+6)/3, (3+6+0)/3, (6+0)/2
    assert drawn[0].axes[0].get_xlabel() == "epoch (moving average over 3)"


def test_without_a_logged_base_the_panel_says_what_it_shows(tmp_path: Path, drawn: list[Figure]) -> None:
    run = [{"stage": "rl", "step": step, "reward/total": 3.0 + step} for step in range(2)]
    reward_curves({"rl": [run]}, tmp_path / "curves.png")
    assert next(panel.get_title(loc="left") for panel in drawn[0].axes) == "Total reward (weighted sum)"
    panel = drawn[0].axes[0]
    assert [text.get_text() for text in panel.texts] == [figures.NO_BASE]
    assert panel.get_ylabel() == "mean reward"
    gains = [{**row, "gain/total": 0.1} for row in run]
    reward_curves({"rl": [gains]}, tmp_path / "curves.png")
    assert drawn[1].axes[0].get_ylabel() == "tuned \u2212 base"


def test_an_arm_that_does_not_log_a_key_is_named(tmp_path: Path, drawn: list[Figure]) -> None:
    reward_curves(
        {"VQ only": [rows([0.1, 0.2])], "MQ only": [rows([0.3, 0.4], "gain/mq")]},
        tmp_path / "c.png",
        keys=("gain/vq", "gain/mq"),
    )
    assert [panel.get_title(loc="right") for panel in drawn[0].axes] == ["not logged: MQ only", "not logged: VQ only"]


def test_rows_without_the_key_and_later_stages(tmp_path: Path, drawn: list[Figure]) -> None:
    """Other stages' rows are skipped; a second stage with rewards follows the first instead of folding back over it."""
    run = [*rows([9.0], key="codec/loss", stage="codec"), *rows([0.1, 0.2]), *rows([0.3, 0.4], stage="long")]
    reward_curves({"rl": [run]}, tmp_path / "curves.png", keys=("gain/vq",), window=1)
    (line,) = curves_of(drawn[0].axes[0])
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("runs", [{}, {"rl": []}, {"rl": [rows([0.5])]}], ids=["no arm", "no seed", "no such key"])
def test_a_panel_without_numbers_says_so(tmp_path: Path, drawn: list[Figure], runs: dict) -> None:
    reward_curves(runs, tmp_path / "curves.png", keys=("gain/mq",))
    panel = drawn[0].axes[0]
    assert [text.get_text() for text in panel.texts] == [NOT_RUN]
    assert not len(panel.get_xticks())


def test_four_panels_make_a_png_of_legible_size(tmp_path: Path, drawn: list[Figure]) -> None:
    run = [{"stage": "rl", "step": s, **{f"gain/{k}": s / 10 for k in ("total", "vq", "mq", "ta")}} for s in range(5)]
    reward_curves({"rl": [run, run]}, tmp_path / "curves.png")
    assert len(drawn[0].axes) == 4
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width >= 1200
        assert image.height >= 900


# --- a panel per arm


def test_every_arm_has_its_panel_on_one_axis_and_the_tables_end(tmp_path: Path, drawn: list[Figure]) -> None:
    arms = {"a": [rows([0.0, 0.1])], "b": [rows([0.0, 0.4])]}
    ends = {("a", "gain/vq"): Effect(0.05, 0.01, 0.09)}
    arm_panels(arms, tmp_path / "arms.png", ("gain/vq",), ends, window=1)
    left, right = drawn[0].axes
    assert [panel.get_title(loc="left") for panel in (left, right)] == ["a (1 seed)", "b (1 seed)"]
    assert left.get_ylim() == right.get_ylim()
    whisker = [list(line.get_ydata()) for line in left.lines if list(line.get_ydata()) == [0.01, 0.09]]
    assert len(whisker) == 1
    assert "as the tables have it" in drawn[0].get_supxlabel()


def test_one_arm_has_a_panel_per_key(tmp_path: Path, drawn: list[Figure]) -> None:
    run = [{"stage": "rl", "step": step, "gain/vq": 0.1, "reward/mq": 0.2} for step in range(3)]
    arm_panels({"RL on LongLive": [run]}, tmp_path / "arm.png", ("gain/vq", "reward/mq"), {})
    assert [panel.get_title(loc="left") for panel in drawn[0].axes] == ["VQ: visual quality", "MQ: motion quality"]
    assert "no base logged" in drawn[0].get_supxlabel()  # of the reward
    assert drawn[0].get_suptitle() == "RL on LongLive (1 seed)"


# --- paired differences


def test_differences_have_whiskers_numbers_and_a_fill_where_they_are_decided(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    rows = {
        "up": Effect(0.03, 0.01, 0.05, 0.741),
        "open": Effect(0.0, -0.02, 0.02, 0.5),
        "down": Effect(-0.2, -0.3, -0.1),
        "gone": None,
    }
    paired_differences([Panel("Short videos", rows)], tmp_path / "d.png", "a note")
    axes, numbers = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(rows)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [point.get_color() for point in points] == [BETTER, OPEN, WORSE]
    assert [point.get_markerfacecolor() for point in points] == [BETTER, "white", WORSE]
    whiskers = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
    assert whiskers[1:] == [[0.01, 0.05], [-0.02, 0.02], [-0.3, -0.1]]  # after the zero line
    assert [label.get_text() for label in numbers.get_yticklabels()] == [
        "0.741   +0.030 [+0.010, +0.050]",
        "0.500   0.000 [\u22120.020, +0.020]",
        "\u22120.20 [\u22120.30, \u22120.10]",
        NOT_RUN,
    ]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row on top
    assert drawn[0].get_supxlabel() == "a note"


def test_lower_may_be_better_and_a_ratio_has_its_own_reference(tmp_path: Path, drawn: list[Figure]) -> None:
    value = {"x": Effect(0.9, 0.8, 0.95)}
    paired_differences([Panel("Drift", value, "down", 1.0, "last / first")], tmp_path / "d.png")
    axes, numbers = drawn[0].axes
    assert axes.lines[-1].get_color() == BETTER
    assert [label.get_text() for label in numbers.get_yticklabels()] == ["0.900 [0.800, 0.950]"]


def test_an_end_beside_zero_and_points_of_no_direction_are_explained(tmp_path: Path, drawn: list[Figure]) -> None:
    value = {"x": Effect(0.0166, -0.0001, 0.0334)}
    paired_differences([Panel("VQ", value), Panel("Norm", value, "none")], tmp_path / "d.png")
    (label,) = drawn[0].axes[2].get_yticklabels()
    assert label.get_text() == "+0.0166 [\u22120.0001, +0.0334]"
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [WORDS[OPEN], WORDS[QUIET]]


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    data = []
    for _ in range(2):
        paired_differences([Panel("x", {"color": Effect(0.8, 0.7, 0.9)})], tmp_path / "bars.png")
        reward_curves({"rl": [rows([0.0, 1.0])]}, tmp_path / "curves.png", keys=("gain/vq",), window=1)
        data.append([(tmp_path / name).read_bytes() for name in ("bars.png", "curves.png")])
    assert data[0] == data[1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bars.png", "curves.png"]

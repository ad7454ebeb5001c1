"""Bold and underline of measured cells, units and signs: only what the records can tell."""

from __future__ import annotations

import pytest

from eval.papers.marks import measured_marks
from eval.papers.table import Measured, ViewColumn
from eval.renderers.words import fixed, heading, interval_text, measured_text, published_text, verdict_text
from tests.claim_records import record

WAVE = [0.1, -0.1] * 4


def cell(mean: float, noise: list[float] | None = None):
    return {0: record("a", "vq", [mean + wobble for wobble in noise or [0.0] * 8])}


def view_column(label: str, metric: str, unit: str) -> ViewColumn:
    return ViewColumn.model_validate({"key": "x", "label": label, "direction": "up", "metric": metric, "unit": unit})


@pytest.mark.parametrize(
    ("cells", "direction", "expected"),
    [
        ({"a": cell(1.0), "b": cell(2.0), "c": cell(3.0)}, "up", {"c": "best", "b": "second"}),
        ({"a": cell(1.0), "b": cell(2.0), "c": cell(3.0)}, "down", {"a": "best", "b": "second"}),
        ({"a": cell(1.0), "b": cell(1.01, WAVE)}, "up", {}),  # .01 +- .09: inside the interval
        ({"a": cell(0.0), "b": cell(1.0), "c": cell(1.01, WAVE)}, "up", {}),  # two lead, neither alone
        ({"a": cell(1.0), "b": cell(1.01, WAVE), "c": cell(3.0)}, "up", {"c": "best"}),  # no second
        ({"a": cell(2.0, WAVE), "b": cell(2.0, WAVE), "c": cell(1.0)}, "up", {"a": "best", "b": "best", "c": "second"}),
        ({"a": cell(1.0), "b": cell(2.0)}, "up", {"b": "best"}),  # of two the second is the last
        ({"a": cell(1.0), "b": cell(2.0)}, "none", {}),
        ({"a": cell(1.0)}, "up", {}),
    ],
)
def test_marks_need_an_interval_without_zero(cells, direction, expected):
    assert measured_marks(cells, direction) == expected


def test_too_few_prompts_mark_nothing():
    five = {name: {0: record("a", "vq", [value] * 5)} for name, value in (("a", 1.0), ("b", 2.0))}
    assert measured_marks(five, "up") == {}


def test_memory_has_units_on_both_sides_and_none_in_the_header():
    column = view_column("Mem", "peak_memory", "GB")
    assert heading(column) == "Mem / peak_memory ↑"
    assert [published_text(text, column) for text in ("54.3", ">140", "OOM", "—")] == ["54.3 GB", ">140 GB", "OOM", "—"]
    small, large = (Measured(mean=m, low=m, high=m, n=3, backbone="shapes") for m in (35.5 * 2**20, 1.5 * 2**30))
    assert measured_text(small, column) == "35.5 MiB (3 seeds)"  # the same in every run: no half-width
    assert measured_text(large, column) == "1.5 GiB (3 seeds)"


def test_a_unit_that_both_sides_share_stays_in_the_header():
    column = view_column("Share", "share", "%")
    assert heading(column) == "Share (%) ↑"  # and the metric has the header's name
    assert published_text("3", column) == "3"


def test_what_rounds_to_zero_has_no_sign():
    assert [fixed(value, 3, signed=True) for value in (-0.0004, 0.0004, -0.0006)] == ["0.000", "0.000", "-0.001"]
    assert interval_text(-0.0001, -0.03, 0.03, "vq") == "0.000 [-0.030, +0.030]"


def test_an_end_beside_zero_shows_its_side():
    assert interval_text(0.0167, -0.0003, 0.0334, "vq") == "+0.0167 [-0.0003, +0.0334]"
    assert interval_text(0.0167, 0.0, 0.0334, "vq") == "+0.017 [0.000, +0.033]"  # it is zero
    assert interval_text(0.0167, -1e-17, 0.0334, "vq") == "+0.017 [0.000, +0.033]"  # no digit would show it
    assert interval_text(0.0167, 0.0003, 0.0334, "vq", signed=False) == "0.017 [0.000, 0.033]"


def test_words_of_one_seed():
    assert [verdict_text("holds", count) for count in (1, 3)] == ["holds (1 seed)", "holds"]
    assert verdict_text("undecided", 1) == "undecided"

"""VBench's arithmetic, on scores worked by hand."""

from __future__ import annotations

import pytest

from astro_cli.config.errors import RecordError
from eval.vbench import totals as vbench_totals
from eval.vbench.totals import DIMENSIONS, LONG_DIMENSIONS, QUALITY_DIMENSIONS, SEMANTIC_DIMENSIONS


def test_normalise_by_hand() -> None:
    # (0.5731 - 0.1462) / (1 - 0.1462) = 0.4269 / 0.8538 = 0.5
    assert vbench_totals.normalise("subject_consistency", 0.5731) == pytest.approx(0.5)
    # (0.4111 - 0) / 0.8222 = 0.5
    assert vbench_totals.normalise("scene", 0.4111) == pytest.approx(0.5)
    # (0.1432 - 0.0009) / 0.2846 = 0.5
    assert vbench_totals.normalise("appearance_style", 0.1432) == pytest.approx(0.5)


def test_no_clipping() -> None:
    # (1 - 0.706) / 0.2915 = 1.00857...
    assert vbench_totals.normalise("motion_smoothness", 1.0) == pytest.approx(0.294 / 0.2915)
    assert vbench_totals.normalise("subject_consistency", 0.0) < 0


def test_ends_of_the_ranges() -> None:
    lowest, highest = ({name: getattr(span, end) for name, span in DIMENSIONS.items()} for end in ("low", "high"))
    assert vbench_totals.total(lowest) == pytest.approx(0)
    assert vbench_totals.total(highest) == pytest.approx(1)


def test_dynamic_degree_counts_half() -> None:
    # all others at their minimum: 0.5 x 1 / (6 + 0.5)
    scores = {name: span.low for name, span in QUALITY_DIMENSIONS.items()} | {"dynamic_degree": 1.0}
    assert vbench_totals.quality(scores) == pytest.approx(0.5 / 6.5)
    # without flicker: 0.5 / 5.5
    assert vbench_totals.long_total(scores) == pytest.approx(0.5 / 5.5)


def test_semantic_is_the_plain_mean_of_nine() -> None:
    scores = {name: span.low for name, span in SEMANTIC_DIMENSIONS.items()} | {"color": 0.9}
    assert vbench_totals.semantic(scores) == pytest.approx(0.1)


def test_total_weighs_quality_four_to_one() -> None:
    # (4 x 0.8 + 0.3) / 5 = 0.7
    assert vbench_totals.combine(0.8, 0.3) == pytest.approx(0.7)


def test_groups() -> None:
    assert (len(QUALITY_DIMENSIONS), len(SEMANTIC_DIMENSIONS), len(DIMENSIONS), len(LONG_DIMENSIONS)) == (7, 9, 16, 6)
    assert "temporal_flickering" not in LONG_DIMENSIONS


def test_an_absent_dimension_is_not_zero() -> None:
    scores = {name: 0.5 for name in QUALITY_DIMENSIONS if name != "imaging_quality"}
    with pytest.raises(RecordError, match="imaging_quality: no score, so no total: 6 of 7 dimensions"):
        vbench_totals.quality(scores)


def test_unknown_dimension() -> None:
    with pytest.raises(RecordError, match="no such dimension"):
        vbench_totals.normalise("beauty", 0.5)

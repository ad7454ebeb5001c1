"""The table of docs/performance.md is the record's, and the record keeps what it claims."""

from bench import ratios
from tests.docs.pages import ROOT


def test_the_page_shows_the_record():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert ratios.markdown(ratios.read(ROOT / ratios.RECORD)) in page


def test_quotients_are_taken_within_a_turn():
    # 4 / 2, 9 / 3 and 1 / 1: median 2, from 1 to 3; the quotient of the medians would be 4 / 2
    times = ratios.SideTimes(64, False, 256, 8, [2.0, 3.0, 1.0], [4.0, 9.0, 1.0], [1.0, 1.0, 1.0], 0.0)
    assert times.quotient("released", "product") == (2.0, 1.0, 3.0)


def test_both_loops_make_the_same_video_at_every_size():
    measured = ratios.read(ROOT / ratios.RECORD)
    assert {row.tokens for row in measured} == {64, 256, 1024}
    assert all(0 < row.difference < 1e-5 for row in measured)

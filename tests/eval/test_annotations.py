"""Human judgements: shares, intervals and tests by hand, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import gsb, likert
from eval.annotations import AnnotationError, sign_test, wilson


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_gsb_of_bpgo():
    # TeleBoost, Table 5: 34 good, 48 same, 18 bad -> win rate 34/52, preference (34 + 24)/100, margin 16/100
    found = gsb.summarise("all", 34, 48, 18)
    assert found.win_rate == pytest.approx(0.654, abs=5e-4)
    assert (found.preference, found.margin, found.n) == (pytest.approx(0.58), pytest.approx(0.16), 100)
    assert found.margin == pytest.approx(2 * found.preference - 1)
    assert found.win_rate_low is not None
    assert found.win_rate_low < 0.654 < (found.win_rate_high or 0)
    assert found.p == pytest.approx(0.0365, abs=5e-4)  # two-sided binomial of 34 in 52


def test_wilson_by_hand():
    # 8 of 10: centre (0.8 + 3.8415/20) / 1.38415 = 0.7168, half 1.96 sqrt(0.016 + 0.009604) / 1.38415 = 0.2266
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=2e-4)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


def test_sign_test_by_hand():
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(3, 3) == 1.0
    assert sign_test(0, 0) == 1.0


def test_all_ties_have_no_win_rate():
    found = gsb.summarise("all", 0, 7, 0)
    assert (found.win_rate, found.preference, found.margin, found.p) == (None, 0.5, 0.0, 1.0)


def test_gsb_file_by_criterion(tmp_path):
    path = written(tmp_path / "a.csv", "\ufeffcriterion, verdict\nmotion,G\nmotion,same\ntext,b\ntext,G\n\n")
    rows = {row.criterion: (row.good, row.same, row.bad) for row in gsb.read(path)}
    assert rows == {"motion": (1, 1, 0), "text": (1, 0, 1), "all": (2, 1, 1)}


def test_likert_means_and_counts(tmp_path):
    path = written(tmp_path / "a.csv", "arm,criterion,item,score\nours,motion,v1,4\nours,motion,v1,2\nours,motion,v2,3\nbase,motion,v1,1\n")
    ours, base = likert.read(path, (1, 4))
    assert (ours.arm, ours.mean, ours.n, ours.items) == ("ours", 3.0, 3, 2)
    assert (base.mean, base.low, base.high) == (1.0, 1.0, 1.0)


def test_likert_interval_counts_items_not_ratings(tmp_path):
    """Ten raters who agree on two videos are two observations."""
    rows = "".join(f"motion,v{video},{score}\n" for video, score in ((1, 1), (2, 4)) for _ in range(10))
    (found,) = likert.read(written(tmp_path / "a.csv", "criterion,item,score\n" + rows), (1, 4))
    assert (found.mean, found.low, found.high) == (2.5, 1.0, 4.0)
    alone = "".join(f"motion,{score}\n" for score in (1, 4) for _ in range(10))
    (other,) = likert.read(written(tmp_path / "b.csv", "criterion,score\n" + alone), (1, 4))
    assert other.high - other.low < 1.5


@pytest.mark.parametrize(("text", "says"), [
    ("", "no column 'verdict'"), ("verdict\n", "holds no row"), ("verdct\nG\n", "did you mean 'verdct'"), ("verdict\nG\nbest\n", "line 3"),
])  # fmt: skip
def test_wrong_gsb_files_are_named(text, says, tmp_path):
    with pytest.raises(AnnotationError) as caught:
        gsb.read(written(tmp_path / "a.csv", text))
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("score", ["5", "0", "2.5", "", "nan", "-1"])
def test_scores_off_the_scale_are_named(score, tmp_path):
    with pytest.raises(AnnotationError, match=r"line 2: score: found"):
        likert.read(written(tmp_path / "a.csv", f"criterion,score\nmotion,{score}\n"), (1, 4))


def test_files_that_are_none(tmp_path):
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00verdict")
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "b.csv"):
        with pytest.raises(AnnotationError, match="cannot be read"):
            gsb.read(path)

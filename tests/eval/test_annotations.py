"""Human judgements: shares, intervals and tests by hand, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from astro_cli.config.errors import RecordError
from eval.human import gsb, likert
from eval.human.annotations import AnnotationError, sign_test, wilson


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
    path = written(
        tmp_path / "a.csv",
        "arm,criterion,item,score\nours,motion,v1,4\nours,motion,v1,2\nours,motion,v2,3\nbase,motion,v1,1\n",
    )
    ours, base = likert.read(path, (1, 4)).arms
    assert (ours.arm, ours.mean, ours.n, ours.items) == ("ours", 3.0, 3, 2)
    assert (base.mean, base.low, base.high) == (1.0, 1.0, 1.0)


def test_likert_interval_counts_items_not_ratings(tmp_path):
    """Ten raters who agree on two videos are two observations."""
    rows = "".join(f"motion,v{video},{score}\n" for video, score in ((1, 1), (2, 4)) for _ in range(10))
    (found,) = likert.read(written(tmp_path / "a.csv", "criterion,item,score\n" + rows), (1, 4)).arms
    assert (found.mean, found.low, found.high) == (2.5, 1.0, 4.0)
    alone = "".join(f"motion,{score}\n" for score in (1, 4) for _ in range(10))
    (other,) = likert.read(written(tmp_path / "b.csv", "criterion,score\n" + alone), (1, 4)).arms
    assert other.high - other.low < 1.5


def test_likert_share_of_high_ratings(tmp_path):
    # 8 of 10 ratings are 3 or 4: Wilson as worked above; 4 alone: 2 of 10
    rows = "".join(f"motion,{score}\n" for score in (3, 3, 3, 3, 3, 3, 4, 4, 1, 2))
    path = written(tmp_path / "a.csv", "criterion,score\n" + rows)
    (half,) = likert.read(path, (1, 4)).arms
    assert (half.threshold, half.share) == (3, 0.8)
    assert (half.share_low, half.share_high) == pytest.approx((0.4902, 0.9433), abs=2e-4)
    (top,) = likert.read(path, (1, 4), threshold=4).arms
    assert (top.threshold, top.share) == (4, 0.2)


@pytest.mark.parametrize(("scale", "threshold"), [((1, 4), 3), ((1, 5), 4), ((0, 10), 6), ((0, 1), 1), ((1, 2), 2)])
def test_the_top_half_leaves_the_middle_out(scale, threshold):
    assert likert.top_half(scale) == threshold


@pytest.mark.parametrize("threshold", [1, 5])
def test_a_threshold_that_decides_nothing_is_refused(threshold, tmp_path):
    with pytest.raises(RecordError, match=r"allowed: whole numbers 2 to 4"):
        likert.read(written(tmp_path / "a.csv", "criterion,score\nmotion,3\n"), (1, 4), threshold)


def test_likert_pairs_by_item_and_rater(tmp_path):
    # ours - base: v1 r1 +2, v1 r2 0, v2 r1 +1, v3 r1 -1; v2 r2 and v4 were rated of one arm only: 2 wins, 1 tie, 1 loss
    ours = {("v1", "r1"): 4, ("v1", "r2"): 2, ("v2", "r1"): 3, ("v3", "r1"): 1, ("v2", "r2"): 4}
    base = {("v1", "r1"): 2, ("v1", "r2"): 2, ("v2", "r1"): 2, ("v3", "r1"): 2, ("v4", "r1"): 1}
    rows = "".join(
        f"{arm},motion,{item},{rater},{score}\n"
        for arm, found in (("ours", ours), ("base", base))
        for (item, rater), score in found.items()
    )
    (pair,) = likert.read(written(tmp_path / "a.csv", "arm,criterion,item,rater,score\n" + rows), (1, 4)).pairs
    assert (pair.criterion, pair.arm, pair.other, pair.wins, pair.ties, pair.losses) == (
        "motion",
        "ours",
        "base",
        2,
        1,
        1,
    )
    assert pair.win_rate == pytest.approx(2 / 3)
    # Wilson of 2 in 3: centre (0.6667 + 3.8415/6) / 2.2805 = 0.5731, half 1.96 sqrt(0.07407 + 0.10671) / 2.2805 =
    # 0.3654
    assert (pair.win_rate_low, pair.win_rate_high) == pytest.approx((0.2077, 0.9385), abs=2e-4)
    assert pair.p == 1.0  # two-sided binomial of 2 in 3: 2 (1 + 3) / 8


def test_likert_pairs_without_raters_compare_the_items_means(tmp_path):
    # v1: 3.5 against 3, v2: 2 against 2, v3 only of one arm
    text = "arm,criterion,item,score\na,m,v1,4\na,m,v1,3\na,m,v2,2\na,m,v3,1\nb,m,v1,3\nb,m,v2,1\nb,m,v2,3\n"
    (pair,) = likert.read(written(tmp_path / "a.csv", text), (1, 4)).pairs
    assert (pair.wins, pair.ties, pair.losses, pair.win_rate, pair.p) == (1, 1, 0, 1.0, 1.0)


def test_likert_pairs_need_items_in_common_and_one_criterion(tmp_path):
    text = "arm,criterion,item,score\na,m,v1,4\nb,m,v2,3\nb,other,v1,3\n"
    assert likert.read(written(tmp_path / "a.csv", text), (1, 4)).pairs == []
    assert likert.read(written(tmp_path / "b.csv", "arm,criterion,score\na,m,4\nb,m,3\n"), (1, 4)).pairs == []
    three = "arm,criterion,item,score\n" + "".join(
        f"{arm},m,v{item},{score}\n" for arm, score in (("a", 4), ("b", 3), ("c", 3)) for item in range(6)
    )
    found = likert.read(written(tmp_path / "c.csv", three), (1, 4)).pairs
    assert [(pair.arm, pair.other, pair.wins, pair.ties) for pair in found] == [
        ("a", "b", 6, 0),
        ("a", "c", 6, 0),
        ("b", "c", 0, 6),
    ]
    assert [pair.p for pair in found] == [pytest.approx(2 / 64), pytest.approx(2 / 64), 1.0]
    assert found[2].win_rate is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column 'verdict'"),
        ("verdict\n", "holds no row"),
        ("verdct\nG\n", "did you mean 'verdct'"),
        ("verdict\nG\nbest\n", "line 3"),
    ],
)
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
        with pytest.raises(AnnotationError, match=r"cannot be read|is a folder, expected a file"):
            gsb.read(path)

"""Human studies: rankings by hand, JSON lines as tables are read, which clips stand together, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.pairs import list_pairs
from eval.contract import Sample, Segment, VideoInfo
from eval.human import gsb, likert, rank
from eval.human.annotations import AnnotationError
from eval.human.trials import HumanStudy, StudyError, match, shuffled
from tests.command_line import run

RANKS = "item,arm,rank,rater\n1,a,1,x\n1,b,2,x\n1,c,3,x\n2,a,2,x\n2,b,1,x\n2,c,3,x\n3,a,1,x\n3,b,2,x\n3,c,2,x\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_ranks_by_hand(tmp_path):
    # a: 1, 2, 1; b: 2, 1, 2.5 (tied with c in the third); c: 3, 3, 2.5
    found = rank.read(written(tmp_path / "r.csv", RANKS))
    means = {row.arm: (row.mean, row.first, row.n, row.items) for row in found.arms}
    assert means["a"] == (pytest.approx(4 / 3), pytest.approx(2 / 3), 3, 3)
    assert means["b"] == (pytest.approx(5.5 / 3), pytest.approx(1 / 3), 3, 3)
    assert means["c"] == (pytest.approx(8.5 / 3), 0.0, 3, 3)
    pairs = {(pair.arm, pair.other): (pair.wins, pair.ties, pair.losses) for pair in found.pairs}
    assert pairs == {("a", "b"): (2, 0, 1), ("a", "c"): (3, 0, 0), ("b", "c"): (2, 1, 0)}
    # Friedman: 12 n / (k (k + 1)) sum (mean - 2)^2 = 3 (.4444 + .0278 + .6944) = 3.5, over 1 - 6 / 72 for the one tie
    (test,) = found.tests
    assert test.statistic == pytest.approx(3.5 / (1 - 6 / 72))


def test_a_shared_first_place_is_shared(tmp_path):
    found = rank.read(written(tmp_path / "r.csv", "item,arm,rank\n1,a,1\n1,b,1\n"))
    assert [(row.mean, row.first) for row in found.arms] == [(1.5, 0.5), (1.5, 0.5)]
    assert (found.pairs[0].ties, found.tests) == (1, [])


def test_raters_of_one_item_are_one_cluster(tmp_path):
    rows = []
    for item, worse in ((1, "b"), (2, "a"), (3, "b")):
        rows += [f"{item},{arm},{1 + (arm == worse)},r{rater}\n" for rater in range(10) for arm in "ab"]
    found = rank.read(written(tmp_path / "r.csv", "item,arm,rank,rater\n" + "".join(rows)))
    alone = rank.read(written(tmp_path / "s.csv", "item,arm,rank\n1,a,1\n1,b,2\n2,b,1\n2,a,2\n3,a,1\n3,b,2\n"))
    (first, _), (other, _) = found.arms, alone.arms
    assert (first.n, first.items, first.low, first.high) == (30, 3, pytest.approx(other.low), pytest.approx(other.high))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item,arm,rank\n1,a,0\n", "line 2: rank: found '0', allowed: whole numbers from 1"),
        ("item,arm,rank\n1,a,best\n", "rank: found 'best'"),
        ("item,arm,rank\n1,a,1\n1,a,2\n", "line 3: arm: found 'a' twice for item '1'"),
        ("item,arm,rank\n1,a,1\n1,b,2\n2,a,1\n", "item '2' ranks a; the first ranks a, b"),
        ("item,arm\n1,a\n", "no column 'rank'"),
    ],
)
def test_wrong_rankings_are_named(text, says, tmp_path):
    with pytest.raises(AnnotationError) as caught:
        rank.read(written(tmp_path / "r.csv", text))
    assert says in str(caught.value)


def test_json_lines_are_read_as_tables_are(tmp_path):
    rows = [
        {"criterion": "q", "item": "1", "arm": "a", "score": 3, "labels": {"plays": 2}},
        {"criterion": "q", "score": 4},
    ]
    (one, other) = likert.read(written(tmp_path / "l.jsonl", lines(rows)), (1, 5)).arms
    assert (one.arm, one.mean, other.arm, other.mean) == ("a", 3.0, "", 4.0)
    ranks = [{"item": item, "arm": arm, "rank": place} for item in "12" for place, arm in enumerate("ab", 1)]
    assert [row.mean for row in rank.read(written(tmp_path / "r.jsonl", lines(ranks))).arms] == [1.0, 2.0]


def test_verdicts_of_several_pairs_of_arms_stay_apart(tmp_path):
    rows = [
        {"arm": "a", "other": "b", "criterion": "motion", "verdict": "G"},
        {"arm": "a", "other": "b", "criterion": "text", "verdict": "S"},
        {"arm": "a", "other": "c", "criterion": "motion", "verdict": "B"},
    ]
    found = gsb.read(written(tmp_path / "g.jsonl", lines(rows)))
    assert [(row.arm, row.other, row.criterion, row.good, row.same, row.bad) for row in found] == [
        ("a", "b", "motion", 1, 0, 0),
        ("a", "b", "text", 0, 1, 0),
        ("a", "b", "all", 1, 1, 0),
        ("a", "c", "motion", 0, 0, 1),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n", "holds no row"),
        ("[1]\n", "line 1: found a list, expected an object"),
        ('{"verdict": "G"}\n{"criterion": "q"}\n', "line 2: no key 'verdict', found criterion"),
        ('{"verdict": "G", "arm": "a"}\n', "arm and other: found 'a' and '', expected two arms"),
        ("{\n", "line 1"),
    ],
)
def test_wrong_json_lines_are_named(text, says, tmp_path):
    with pytest.raises(AnnotationError) as caught:
        gsb.read(written(tmp_path / "g.jsonl", text))
    assert says in str(caught.value)
    assert caught.value.hint


def sample(prompt: str, seed: int | None, *turns: str) -> Sample:
    segments = tuple(
        Segment(float(start), start + 1.0, text) for start, text in enumerate((prompt, *turns) if turns else ())
    )
    path = Path(f"{prompt}-{seed}.mp4")
    return Sample(path, f"{prompt}{seed}{turns}", VideoInfo(8, 8.0, 32, 32), prompt, prompt, seed, segments)


def test_clips_of_one_prompt_and_seed_stand_together():
    base = [sample("a  cat", 1), sample("a cat", 0), sample("a dog", 5), sample("not asked", 0)]
    tuned = [sample("a dog", 5), sample("a cat", 1), sample("a cat", 2)]
    items = match([["a cat"], ["a dog"]], {"base": base, "tuned": tuned})
    assert [item.id for item in items] == ["0001-seed1", "0002-seed5"]
    assert items[0].clips == {"base": base[0], "tuned": tuned[1]}


def test_scripts_are_matched_by_all_their_prompts():
    videos = {arm: [sample("a cat", 0, "a dog"), sample("a cat", 1)] for arm in ("a", "b")}
    (item,) = match([["a cat", "a dog"]], videos)
    assert (item.id, item.prompts) == ("0001-seed0", ((0.0, "a cat"), (1.0, "a dog")))


@pytest.mark.parametrize(
    ("prompts", "videos", "says"),
    [
        ([["a"]], {"one": [sample("a", 0)]}, "found 1, expected 2 to 6"),
        ([["a"], ["a"]], {"one": [sample("a", 0)], "two": [sample("a", 0)]}, "prompt 2: found twice"),
        ([["a"]], {"one": [sample("a", 0)], "two": [sample("b", 0)]}, "two: prompt 1: no video of 'a'"),
        (
            [["a"]],
            {"one": [sample("a", 0)], "two": [sample("a", 1)]},
            "no seed that all arms have: one has 0; two has 1",
        ),
    ],
)
def test_what_gives_no_study_is_named(prompts, videos, says):
    with pytest.raises(StudyError, match=says) as caught:
        match(prompts, videos)
    assert caught.value.exit_code == 2


def test_gsb_compares_every_two_arms_and_orders_are_balanced():
    videos = {arm: [sample(f"p{i}", 0) for i in range(200)] for arm in "abc"}
    items = match([[f"p{i}"] for i in range(200)], videos)
    trials = shuffled(items, tuple("abc"), "gsb", 0)
    assert len(trials) == 600
    assert {frozenset(trial.arms) for trial in trials} == {frozenset("ab"), frozenset("ac"), frozenset("bc")}
    on_the_left = sum(trial.arms[0] < trial.arms[1] for trial in trials)
    assert 240 < on_the_left < 360  # 300 by chance, 12 the deviation
    assert trials == shuffled(items, tuple("abc"), "gsb", 0)
    assert trials != shuffled(items, tuple("abc"), "gsb", 1)


def test_a_study_is_known_by_what_is_judged():
    videos = {arm: [sample("p", 0), sample("q", 0)] for arm in "ab"}
    items = match([["p"], ["q"]], videos)
    trials = shuffled(items, tuple("ab"), "rank", 0)
    first = HumanStudy("t", "rank", ("a", "b"), ("overall",), (1, 5), trials)
    assert first.id == HumanStudy("another title", "rank", ("a", "b"), ("overall",), (1, 5), trials).id
    assert first.id != HumanStudy("t", "rank", ("a", "b"), ("motion",), (1, 5), trials).id


@pytest.fixture
def arms(tmp_path: Path) -> Path:
    for shade, arm in enumerate(("base", "tuned")):
        (tmp_path / arm).mkdir()
        write_mp4(np.full((4, 32, 32, 3), 60 * shade, dtype=np.uint8), tmp_path / arm / "a cat-0.mp4", 8.0)
    (tmp_path / "p.txt").write_text("a cat\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["base"], "error: ARM: found 1, expected 2 to 6"),
        (["base", "base"], "error: ARM: base: a second arm of the name 'base'"),
        (["base", "none"], "none"),
        (["base", "tuned", "--scale", "5-1"], "error: --scale: 5-1"),
        (["base", "tuned", "--scale", "0-99"], "error: --scale: 0-99: expected at most 11 scores"),
        (["base", "tuned", "-c", "motion", "-c", "motion"], "error: --criterion: found 'motion', 'motion'"),
        (["base", "tuned", "--out", "base"], "error: base: --out: is a folder"),
        (["base", "tuned", "--out", "p.txt/s.html"], "p.txt/s.html: cannot be written"),
        (["base", "a b=tuned"], "a b=tuned"),
    ],
)
def test_wrong_input_is_a_message_and_leaves_nothing(arms, arguments, says, monkeypatch, capsys):
    monkeypatch.chdir(arms)
    before = sorted(path.name for path in arms.rglob("*"))
    assert run(["study", "build", *arguments, "--prompts", "p.txt"], monkeypatch) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert sorted(path.name for path in arms.rglob("*")) == before


def test_videos_that_browsers_do_not_play_are_encoded_again(arms, monkeypatch):
    import av

    monkeypatch.chdir(arms)
    (arms / "tuned" / "a cat-0.mp4").unlink()
    with av.open(str(arms / "tuned" / "a cat-0.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p"
        for _ in range(4):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 200, dtype=np.uint8), format="rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    arguments = ["study", "build", "base", "tuned", "--prompts", "p.txt", "--mode", "gsb", "--clips", "clips"]
    assert run(arguments, monkeypatch) == 0
    clips = sorted(path.relative_to(arms).as_posix() for path in (arms / "clips").rglob("*.mp4"))
    assert clips == ["clips/base/0001-take0.mp4", "clips/tuned/0001-take0.mp4"]
    row = {"arm": "base", "other": "tuned", "prompt": "a cat", "verdict": "B"}
    row |= {"chosen": "base/0001-take0.mp4", "rejected": "tuned/0001-take0.mp4"}
    (pair,) = list_pairs(written(arms / "clips" / "answers.jsonl", lines([row])))
    assert pair.chosen.parent.name == "tuned"

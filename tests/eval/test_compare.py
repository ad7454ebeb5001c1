"""`astro eval compare`: paired by prompt and seed, directed by the metric, refused across protocols."""

from __future__ import annotations

from pathlib import Path

import pytest

from astro_cli.commands.eval_compare import cells as cells_of
from astro_cli.config.errors import IntegrityError, RecordError
from eval.records.compare import Comparison, compare, side
from eval.records.store import Record, append, record_path


def made(arm: str, scores: list[float | None], **changes: object) -> Record:
    fields: dict[str, object] = {
        "benchmark": "videoalign",
        "backbone": "wan",
        "arm": arm,
        "seed": 0,
        "metric": "mq",
        "direction": "up",
        "scores": scores,
        "recipe_hash": "r",
        "weights_hash": "w",
        "prompt_set_hash": "p",
        "protocol": {"num_frames": 81, "fps": 16},
        "commit": "c",
        "dirty": False,
    }
    return Record.model_validate(fields | changes)


def one(a: list[Record], b: list[Record]) -> Comparison:
    (row,) = compare("a", a, "b", b)
    return row


def test_differences_are_paired_by_prompt():
    row = one([made("a", [1.0, 2.0, 3.0, None])], [made("b", [2.0, 2.0, 5.0, 9.0])])
    assert row.difference == pytest.approx(1.0)  # (1 + 0 + 2) / 3, the prompt that a lacks left out
    assert (row.mean_a, row.mean_b) == (2.0, 3.0)  # over the same three prompts
    assert row.win_rate == pytest.approx(2.5 / 3)  # two wins, one tie
    assert (row.n, row.prompts, row.seeds) == (3, 3, 1)
    assert row.low is not None
    assert row.high is not None
    assert row.low <= 1.0 <= row.high


def test_one_prompt_under_one_seed_has_no_interval():
    row = one([made("a", [1.0, None])], [made("b", [2.0, 4.0])])
    assert (row.difference, row.low, row.high, row.prompts) == (1.0, None, None, 1)
    assert cells_of(row)[5] == ""
    assert cells_of(one([made("a", [1.0, 2.0])], [made("b", [2.0, 3.0])]))[5] == "+1.0000 .. +1.0000"


def test_lower_is_better_turns_the_win_rate_only():
    row = one([made("a", [1.0, 2.0], direction="down")], [made("b", [2.0, 4.0], direction="down")])
    assert row.difference == pytest.approx(1.5)
    assert row.win_rate == 0.0


def test_only_seeds_of_both_count():
    a = [made("a", [1.0, 1.0], seed=seed) for seed in (0, 1, 2)]
    b = [made("b", [2.0, 2.0], seed=seed) for seed in (1, 2, 3)]
    row = one(a, b)
    assert (row.seeds, row.n, row.prompts) == (2, 4, 2)


def test_other_protocols_are_named_and_refused_where_nothing_is_left():
    other = made("b", [2.0, 2.0], protocol={"num_frames": 81, "fps": 24})
    with pytest.raises(IntegrityError, match="nothing can be compared: another protocol: A has fps 16, B has fps 24"):
        compare("a", [made("a", [1.0, 1.0])], "b", [other])
    with pytest.raises(IntegrityError, match="no seed of both: A has 0, 2, B has 1"):
        compare("a", [made("a", [1.0]), made("a", [1.0], seed=2)], "b", [made("b", [1.0], seed=1)])
    with pytest.raises(IntegrityError, match="no prompt has a score in both"):
        compare("a", [made("a", [1.0, None])], "b", [made("b", [None, 1.0])])
    rows = compare("a", [made("a", [1.0]), made("a", [1.0], metric="vq")], "b", [other, made("b", [3.0], metric="vq")])
    assert {row.metric: bool(row.note) for row in rows} == {"mq": True, "vq": False}


def test_more_samples_per_prompt_are_another_protocol():
    five, one = ({"num_frames": 81, "fps": 16, "samples_per_prompt": count} for count in (5, 1))
    with pytest.raises(IntegrityError, match="A has samples_per_prompt 5, B has samples_per_prompt 1"):
        compare("a", [made("a", [1.0], protocol=five)], "b", [made("b", [1.0], protocol=one)])


def test_limited_records_do_not_count():
    limited = made("b", [2.0], protocol={"num_frames": 81, "fps": 16, "limit": 1})
    with pytest.raises(RecordError, match="share no metric"):
        compare("a", [made("a", [1.0])], "b", [limited])


def test_sides_are_arms_or_folders(tmp_path: Path):
    append(record_path(tmp_path / "x", "videoalign"), made("a", [1.0]))
    append(record_path(tmp_path / "y", "videoalign"), made("b", [1.0]))
    append(record_path(tmp_path / "y", "videoalign"), made("c", [1.0]))
    assert side(str(tmp_path / "x"), tmp_path)[0] == "a"
    assert side("c", tmp_path / "y")[0] == "c"
    with pytest.raises(RecordError, match="holds 2 arms"):
        side(str(tmp_path / "y"), tmp_path)
    with pytest.raises(RecordError) as caught:
        side("aa", tmp_path / "x")
    assert "did you mean 'a'" in str(caught.value) or "allowed: a" in str(caught.value)

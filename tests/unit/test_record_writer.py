"""Records that `RecordWriter` writes: their bytes, their provenance, and which it finds again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from astro_cli.config.errors import RecordError
from eval.records import store
from eval.records.writer import RecordWriter

ENVIRONMENT = {"commit": "abc", "dirty": False, "device": "cpu", "versions": {"torch": "2"}}
LINE = (
    '{"schema_version": 1, "benchmark": "shapes", "backbone": "shapes", "arm": "tuned", "seed": 3, "metric": "vq", '
    '"direction": "up", "scores": [0.5, null], "recipe_hash": "r", "weights_hash": "w", "prompt_set_hash": "p", '
    '"protocol": {"num_frames": 9, "resolution": [32, 32]}, "commit": "abc", "dirty": false, "created": ""}\n'
)


def a_writer(results: Path, arm: str = "tuned", seed: int = 3) -> RecordWriter:
    return RecordWriter(results, "shapes", "shapes", arm, seed, "r", "w", "p")


def write(writer: RecordWriter, metric: str, score: float | None, **protocol: object) -> None:
    writer.append(writer.record(metric, "up", [score, None], protocol, ENVIRONMENT))


def test_the_line_of_a_record_by_hand(tmp_path):
    writer = a_writer(tmp_path)
    write(writer, "vq", 0.5, num_frames=9, resolution=[32, 32])
    line = (tmp_path / "records" / "shapes.jsonl").read_text()
    assert re.sub(r'("created": ")[^"]+', r"\1", line) == LINE


def test_a_source_tree_without_a_commit_is_unknown(tmp_path):
    record = a_writer(tmp_path).record("vq", "up", [1.0], {}, {"commit": None, "dirty": None})
    assert (record.commit, record.dirty) == (store.UNKNOWN, False)


def test_own_records_are_the_newest_whole_ones_of_the_arm_and_seed(tmp_path):
    writer = a_writer(tmp_path)
    for score in (0.1, 0.2):
        write(writer, "vq", score)
    write(writer, "mq", 0.3, limit=4)
    write(a_writer(tmp_path, arm="base"), "vq", 0.4)
    write(a_writer(tmp_path, seed=4), "vq", 0.5)
    assert {metric: record.scores[0] for metric, record in writer.own().items()} == {"vq": 0.2}
    assert [record.scores[0] for record in writer.existing()] == [0.2, 0.4, 0.5]
    assert [record.scores[0] for record in writer.existing(limited=True)] == [0.3]


def test_a_score_that_is_not_finite_is_refused_and_nothing_is_written(tmp_path):
    writer = a_writer(tmp_path)
    with pytest.raises(RecordError, match=r"scores\[0\].*vq of tuned, seed 3"):
        write(writer, "vq", float("nan"))
    assert not writer.path.exists()
    assert writer.own() == {}

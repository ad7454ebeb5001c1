"""The record store: what comes back, what a killed process may leave behind, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from astro_cli.config.errors import OutputError, RecordError
from eval.records.store import Record, append, latest, load, load_results, record_path


def make(**changes: object) -> Record:
    fields = {
        "benchmark": "shapes",
        "backbone": "shapes",
        "arm": "causal_forcing_shapes",
        "seed": 0,
        "metric": "vq",
        "direction": "up",
        "scores": [0.5, None, 0.25],
        "recipe_hash": "r",
        "weights_hash": "w",
        "prompt_set_hash": "p",
        "protocol": {
            "num_frames": 12,
            "fps": 8,
            "resolution": [32, 32],
            "prompts": 3,
            "versions": {"astro": "0.1"},
            "device": "cpu",
        },
        "commit": "abc",
        "dirty": False,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Record.model_validate(fields | changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return record_path(tmp_path, "shapes")


def test_what_is_appended_is_loaded(tmp_path: Path, path: Path) -> None:
    records = [make(seed=seed) for seed in range(3)]
    for record in records:
        append(path, record)
    assert path == tmp_path / "records" / "shapes.jsonl"
    assert load([path]) == records == load_results(tmp_path)
    assert load([path])[0].scores == [0.5, None, 0.25]
    assert len(path.read_text().splitlines()) == 3


def test_no_records_is_no_error(tmp_path: Path) -> None:
    assert load_results(tmp_path / "nothing") == []


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), NotADirectoryError(20, "Not a directory")])
def test_a_folder_that_cannot_be_read_is_not_empty(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> Iterator[Path]:
        raise error

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(RecordError, match=rf"records: cannot be read: {error.strerror}"):
        load_results(tmp_path)


def test_results_that_are_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    with pytest.raises(RecordError, match="cannot be read"):
        load_results(tmp_path / "r")


def test_deeply_nested_lines_are_damaged_records(path: Path) -> None:
    append(path, make())
    good = path.read_text()
    path.write_text("[" * 100_000 + "\n" + good)
    with pytest.raises(RecordError, match="line 1: damaged record: nested too deeply"):
        load([path])


def test_missing_file_named_by_the_caller_is_an_error(path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        load([path])


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_torn_last_line_is_ignored_and_then_replaced(path: Path, cut: int) -> None:
    append(path, make(seed=0))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    assert [record.seed for record in load([path])] == [0]
    append(path, make(seed=1))
    assert [record.seed for record in load([path])] == [0, 1]
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("damage", [b'{"arm": "a", "sc\xff', b"\0" * 8, b'{"arm": '])
def test_a_damaged_last_line_that_has_its_end_is_kept_and_named(path: Path, damage: bytes) -> None:
    append(path, make(seed=0))
    before = path.read_bytes() + damage + b"\n"
    path.write_bytes(before)
    with pytest.raises(RecordError, match="line 2: damaged record"):
        load([path])
    append(path, make(seed=1))
    assert path.read_bytes()[: len(before)] == before
    with pytest.raises(RecordError, match="line 2: damaged record"):
        load([path])


def test_a_tail_longer_than_what_is_read_at_once_is_removed_whole(path: Path) -> None:
    append(path, make(seed=0))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"scores": [' + b"0.5, " * 40_000)
    append(path, make(seed=1))
    assert [record.seed for record in load([path])] == [0, 1]
    assert path.read_bytes().startswith(whole)


def test_line_torn_inside_a_character(path: Path) -> None:
    append(path, make(commit="é"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: whole.index("é".encode()) + 1])
    assert len(load([path])) == 1


def test_line_torn_before_its_newline_is_kept(path: Path) -> None:
    append(path, make(seed=0))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(load([path])) == 1
    append(path, make(seed=1))
    assert [record.seed for record in load([path])] == [0, 1]


def test_damaged_earlier_line_names_file_and_line(path: Path) -> None:
    append(path, make(seed=0))
    good = path.read_text()
    path.write_text(good + good[:30] + "\n" + good)
    with pytest.raises(RecordError) as caught:
        load([path])
    assert str(path) in str(caught.value)
    assert "line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"backbone": "vqgan"}, "backbone"),
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"scores": []}, "scores"),
    ],
)
def test_complete_line_with_wrong_content_is_an_error_even_at_the_end(path: Path, change: dict, key: str) -> None:
    append(path, make())
    path.write_text(json.dumps(make().model_dump() | change) + "\n")
    with pytest.raises(RecordError, match=f"line 1: {key}"):
        load([path])


def test_line_that_is_no_object_is_an_error(path: Path) -> None:
    append(path, make())
    path.write_text("[1]\n" + path.read_text())
    with pytest.raises(RecordError, match="line 1: record"):
        load([path])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_scores_are_refused_on_write(path: Path, value: float) -> None:
    with pytest.raises(RecordError, match=r"scores\[1\]"):
        append(path, make(scores=[0.0, value]))
    with pytest.raises(RecordError, match="protocol"):
        append(path, make(protocol={"fps": value}))
    assert not path.exists()


def test_non_finite_scores_are_refused_on_read(path: Path) -> None:
    append(path, make())
    good = path.read_text()
    path.write_text(good.replace("0.25", "NaN") + good)
    with pytest.raises(RecordError, match=r"line 1: damaged record: .*found nan"):
        load([path])


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where the folder should be")
    with pytest.raises(OutputError):
        append(record_path(tmp_path, "shapes"), make())


def test_times_are_kept_in_utc_and_need_a_zone() -> None:
    assert make(created="2026-01-01T02:00:00+02:00").created == "2026-01-01T00:00:00.000000+00:00"
    with pytest.raises(ValidationError):
        make(created="2026-01-01T02:00:00")


def test_the_last_record_is_the_newest_whatever_its_date(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ahead = make(created="2099-01-01T00:00:00+00:00", weights_hash="ahead")
    new, other = make(weights_hash="new"), make(seed=1)
    for record in (ahead, other, new):
        append(path, record)
    for _ in range(2):  # said once
        assert latest(load([path])) == [new, other]
    assert capsys.readouterr().err == (
        f"warning: {path}: line 1: dated 2099-01-01T00:00:00.000000+00:00, in the future; its place in the file "
        "decides which record is the newest\n"
    )


def test_conditions_count_the_device_only_where_it_matters() -> None:
    on_gpu = make().protocol | {"device": "cuda"}
    assert make().conditions == make(protocol=on_gpu).conditions
    assert make(metric="throughput").conditions != make(metric="throughput", protocol=on_gpu).conditions
    assert make().conditions != make(protocol=make().protocol | {"num_frames": 24}).conditions


def test_conditions_count_the_files_a_scorer_read_beside_the_video_but_no_sidecars_of_timings() -> None:
    other = make().protocol | {"files_read": "0123456789abcdef"}
    assert make().conditions != make(protocol=other).conditions
    assert make(metric="throughput").conditions == make(metric="throughput", protocol=other).conditions


def test_reading_needs_no_torch() -> None:
    modules = (
        "eval.records.store, eval.records.stats, eval.papers.table, eval.renderers.render, astro_cli.commands.table"
    )
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0

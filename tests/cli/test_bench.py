"""`astro bench sample`: what it prints, writes and records, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from astro_cli.__main__ import main
from eval.records import store

QUICK = ("--frames", "3", "--warm-up", "0", "--window", "6", "--sink", "0")


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Runs `astro bench sample ...` in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["astro", "bench", "sample", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_it_prints_writes_and_records(bench):
    code, out, err = bench(*QUICK, "--kv", "fp8", "--attention", "flash", "--results", "results", "--out", "speed.json")
    assert (code, err) == (0, "")
    for word in ("loop", "with decoding", "first frame", "peak memory", "window", "attention", "dtype", "device"):
        assert f"\n{word}  " in out
    speed = json.loads(Path("speed.json").read_text())
    for key in ("loop_frames_per_second", "frames_per_second", "first_frame_seconds", "peak_memory_bytes"):
        assert speed[key] > 0
    assert (speed["window_full"], speed["decoder"], speed["attention"], speed["kv"]) == (True, "codec", "flash", "fp8")
    assert (speed["dtype"], speed["device"], speed["warm_up_blocks"], speed["frames"]) == ("float32", "cpu", 0, 12)
    assert speed["attention_error"] < 1e-5
    assert 1e-4 < speed["kv_error"] < 1
    records = store.load([store.record_path(Path("results"), "throughput")])
    found = {record.metric: record.scores for record in records}
    assert found["throughput"] == [speed["frames_per_second"]]
    assert found["loop_throughput"] == [speed["loop_frames_per_second"]]
    assert found.keys() == {"throughput", "loop_throughput", "latency", "peak_memory"}
    assert records[0].protocol["kv"] == "fp8"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--linear", "fp8"), "--linear: fp8: found a device of type cpu, which has no FP8 products"),
        (("--graphs",), "--graphs: found a device of type cpu, expected a CUDA GPU"),
        (("--attention", "cudnn"), "--attention: cudnn: not available for float32 and heads of"),
        (("--decoder", "none.pth"), "none.pth: --decoder: no such file"),
        (("--weights", "shapes/teacher"), "is a multi-step teacher and does not stream"),
        (("--window", "7"), "found 7, expected"),
        (("--weights", "shapes/teacher", "--kv", "fp8"), "--kv: teacher_shapes is a multi-step teacher"),
    ],
)
def test_what_cannot_be_is_refused(bench, arguments, said):
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "hint: " in err

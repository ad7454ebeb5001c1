"""Scores that depend on a file beside the video: its content, not its name, decides whether they are made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from astro_cli.config.errors import IntegrityError
from eval.contract import ScoreError
from eval.metrics import i2v_background, i2v_subject
from eval.records import store
from eval.records.comparable import Cells, refuse_mixed
from eval.scoring.run import Progress, Report, Request, evaluate
from tests.eval.conftest import FRAMES, HEIGHT, WIDTH

pytest.importorskip("cv2")
BOTH = 'scorers = [{ scorer = "flow_dis" }, { scorer = "brightness" }]'
PROMPTS = ("a cat", "a dog")


def run(folder: Path, results: Path, arm: str = "arm") -> Report:
    return evaluate(Request("test", folder, arm, results), Progress())


def flows(path: Path, x: float) -> Path:
    """A reference in which every pixel moves by `x` to the right."""
    np.save(path, np.broadcast_to(np.array([x, 0], np.float32)[:, None, None], (FRAMES - 1, 2, HEIGHT, WIDTH)))
    return path


def name_reference(folder: Path, name: str) -> None:
    manifest = folder / "manifest.jsonl"
    lines = [json.loads(line) | {"labels": {"reference": name}} for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(fake, suite_of, folder_of) -> Path:
    suite_of(BOTH)
    made = folder_of("videos", PROMPTS)
    flows(made / "flows.npy", 1)
    name_reference(made, "flows.npy")
    return made


def epe(results: Path) -> list[float | None]:
    newest = {record.metric: record for record in store.latest(store.load_results(results))}
    return newest["epe"].scores


def test_another_content_under_one_name_is_scored_anew(folder, tmp_path):
    results = tmp_path / "r"
    assert run(folder, results).scored == 4
    assert (again := run(folder, results)).scored == 0
    assert again.seeds[0].written == []
    before = epe(results)
    flows(folder / "flows.npy", 5)
    report = run(folder, results)
    assert (report.scored, report.reused) == (2, 2)  # flow of both videos; brightness reads no file
    assert "brightness" not in report.seeds[0].written
    assert all(new > old + 3 for old, new in zip(before, epe(results), strict=True))


def test_one_content_under_another_name_is_reused(folder, tmp_path):
    results = tmp_path / "r"
    run(folder, results)
    (folder / "flows.npy").rename(folder / "renamed.npy")
    name_reference(folder, "renamed.npy")
    report = run(folder, results)
    assert (report.scored, report.seeds[0].written) == (0, [])


def test_no_reference_and_a_missing_one(folder, tmp_path):
    results = tmp_path / "r"
    run(folder, results)
    (folder / "flows.npy").unlink()
    report = run(folder, results)
    assert (report.scored, len(report.failures)) == (0, 2)
    assert "no such file" in report.failures[0].what
    assert report.seeds[0].outcomes[0].coverage == "0/2"


def test_records_of_two_references_are_not_put_into_one_column(folder, tmp_path):
    results = tmp_path / "r"
    run(folder, results)
    flows(folder / "flows.npy", 5)
    run(folder, results, arm="other")
    cells = Cells(store.load_results(results), "wan")
    with pytest.raises(IntegrityError, match="files_read"):
        refuse_mixed("table", "epe", {arm: cells.find(arm, "epe", "test") for arm in ("arm", "other")})
    refuse_mixed("table", "brightness", {arm: cells.find(arm, "brightness", "test") for arm in ("arm", "other")})


def test_a_video_timed_again_has_its_new_rate(suite_of, folder_of, tmp_path):
    suite_of('scorers = [{ scorer = "throughput" }]')
    folder, results = folder_of("videos", PROMPTS[:1]), tmp_path / "r"
    for rate in (10.0, 20.0):
        (folder / "000-0.json").write_text(json.dumps({"frames_per_second": rate}))
        run(folder, results)
        assert store.latest(store.load_results(results))[0].scores == [rate]


@pytest.mark.parametrize("scorer", [i2v_subject, i2v_background])
def test_image_to_video_reads_the_start_image(scorer, folder_of, tmp_path):
    from eval.inputs import load

    folder = folder_of("videos", PROMPTS[:1])
    (sample,) = load(folder)
    with pytest.raises(ScoreError, match="names no image"):
        scorer.SCORER.reads(sample)
    (folder / "start.png").write_bytes(b"png")
    sample.labels["image"] = "start.png"  # pyright: ignore[reportIndexIssue]
    assert scorer.SCORER.reads(sample) == (folder / "start.png",)

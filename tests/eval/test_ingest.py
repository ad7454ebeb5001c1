"""VBench's own result files: what is taken over, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from eval import ingest as module
from eval import store
from eval.ingest import IngestError, ingest
from eval.prompt_sets.base import Prompt, PromptSet
from eval.vbench_score import DIMENSIONS

TEXTS = ("a cat", "a dog", "a bird")


@pytest.fixture(autouse=True)
def prompts(monkeypatch: pytest.MonkeyPatch) -> PromptSet:
    """Three prompts instead of VBench's 946: two for every dimension, the third for dynamic degree alone."""
    every = {"dimension": list(DIMENSIONS)}
    made = PromptSet(
        "vbench", "1", tuple(Prompt(f"p{i}", text, {"dimension": ["dynamic_degree"]} if i == 2 else every) for i, text in enumerate(TEXTS))
    )
    monkeypatch.setattr(module, "prompt_set", lambda name: made)
    return made


def entry(value: Any, count: int = 2, samples: int = 5) -> list[Any]:
    return [0.5, [{"video_path": f"/data/{text}-{index}.mp4", "video_results": value} for text in TEXTS[:count] for index in range(samples)]]


def write(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "x_eval_results.json"
    path.write_text(json.dumps(data))
    return path


def records(tmp_path: Path) -> dict[str, store.Record]:
    return {record.metric: record for record in store.load_results(tmp_path / "r")}


def take(tmp_path: Path, data: Any) -> module.Ingested:
    return ingest(write(tmp_path, data), "vbench", "arm", 3, tmp_path / "r")


def test_dimensions_become_records_in_percent(tmp_path):
    found = take(tmp_path, {"subject_consistency": entry(0.9), "imaging_quality": entry(70.0)})
    made = records(tmp_path)
    assert made["subject_consistency"].scores[2] is None  # the third prompt is for another dimension
    assert made["subject_consistency"].scores[:2] == pytest.approx([90.0, 90.0])
    assert made["imaging_quality"].scores[:2] == pytest.approx([70.0, 70.0])  # 0..100 per video already
    assert (made["imaging_quality"].seed, made["imaging_quality"].protocol["scorer"]) == (3, "official")
    assert made["imaging_quality"].protocol["official_aggregates"] == {"subject_consistency": 50.0, "imaging_quality": 50.0}
    assert {total.key: total.coverage for total in found.totals} == {"quality": "2/7", "semantic": "0/9", "total": "2/16"}


def test_booleans_are_0_and_1(tmp_path):
    data = entry(True, count=3)
    data[1][0]["video_results"] = False
    take(tmp_path, {"dynamic_degree": data})
    assert records(tmp_path)["dynamic_degree"].scores == pytest.approx([80.0, 100.0, 100.0])  # 4 of 5


def test_sixteen_dimensions_give_the_totals(tmp_path):
    values: dict[str, Any] = dict.fromkeys(DIMENSIONS, 0.5) | {"imaging_quality": 50.0}
    data = {name: entry(value, count=3 if name == "dynamic_degree" else 2) for name, value in values.items()}
    found = take(tmp_path, data)
    assert found.complete
    made = records(tmp_path)
    means = {key: fmean(score for score in made[key].scores if score is not None) for key in ("total", "quality", "semantic")}
    assert means["total"] == pytest.approx((4 * means["quality"] + means["semantic"]) / 5)
    again = take(tmp_path, data)
    assert again.written == []


def test_missing_samples_leave_a_dimension_out(tmp_path):
    found = take(tmp_path, {"scene": entry(0.5, samples=4), "color": entry(0.5)})
    assert {outcome.key: outcome.coverage for outcome in found.outcomes} == {"scene": "8/10", "color": "10/10"}
    assert records(tmp_path).keys() == {"color"}


def test_clips_of_a_long_video_are_averaged(tmp_path):
    videos = [
        {"video_path": f"split_clip/{text}-{index}/{text}-{index}_{clip:03d}.mp4", "video_results": 0.2 * (1 + clip)}
        for text in TEXTS[:2] for index in range(5) for clip in range(3)
    ]  # fmt: skip
    ingest(write(tmp_path, {"scene": [0.4, videos]}), "vbench-long", "arm", 0, tmp_path / "r")
    assert records(tmp_path)["scene"].scores[:2] == pytest.approx([40.0, 40.0])


def test_strangers_are_listed(tmp_path):
    data = entry(0.5)
    data[1].append({"video_path": "a whale-0.mp4", "video_results": 0.5})
    assert take(tmp_path, {"scene": data}).unknown == ["a whale-0.mp4"]


VIDEO = '{"video_path": "a cat-0.mp4", "video_results": 0.5}'


@pytest.mark.parametrize(("text", "says"), [
    (f'{{"scene": [NaN, [{VIDEO}]]}}', "found NaN"), ("{", "no JSON"), ("[]", "expected a dimension"), ('{"scene": [0.5, []]}', "scene"),
    ('{"scene": 0.5}', "scene"), (f'{{"scne": [0.5, [{VIDEO}]]}}', "did you mean 'scene'"), (f'{{"scene": ["0.5", [{VIDEO}]]}}', "scene[0]"),
    (f'{{"scene": [0.5, [{VIDEO.replace("0.5", "null")}]]}}', "scene[0].video_results: found null"),
    (f'{{"scene": [0.5, [{VIDEO.replace("0.5", "1e999")}]]}}', "expected a number"), ('{"scene": [0.5, [{"video_results": 0.5}]]}', "video_path"),
])  # fmt: skip
def test_what_is_refused(text, says, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(IngestError) as caught:
        ingest(path, "vbench", "arm", 0, tmp_path / "r")
    assert says in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "r").exists()


def test_a_suite_without_official_files(tmp_path):
    with pytest.raises(IngestError, match="no official result files"):
        ingest(write(tmp_path, {"scene": entry(0.5)}), "hpsv3", "arm", 0, tmp_path / "r")
    with pytest.raises(IngestError, match="cannot be read"):
        ingest(tmp_path / "none.json", "vbench", "arm", 0, tmp_path / "r")

"""VBench-Long's clips, slow-fast fusion, I2V's formula and totals, by hand; other interpreters by a script that speaks
their JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from astro_cli.config.errors import RecordError, RunError
from eval.contract import NetworkCache, Sample, ScoreError, VideoInfo
from eval.metrics import object_class, subject_consistency, temporal_flickering
from eval.vbench import totals as vbench_totals
from eval.vbench.dimension import DimensionConfig
from eval.vbench.isolated import VARIABLE, Worker
from eval.vbench.long import Span, clip_seconds, cut
from eval.vbench.similarity import Conformity, Consistency
from eval.vbench.slow_fast import fuse, read_table

TABLES = Path(__file__).parents[3] / "shared" / "data" / "vbench"
AUXILIARY = {"dimension": ["object_class"], "auxiliary_info": {"object_class": {"object": "cat"}}}
FAKE = """#!{python}
import json, sys
print("noise", file=sys.stderr)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({{"value": {value}, "details": {{"heard": request["auxiliary"]}}}}), flush=True)
"""


def sample(frames: int, fps: float = 2.0, **labels: object) -> Sample:
    return Sample(Path("clip.mp4"), "0" * 64, VideoInfo(frames, fps, 4, 4), "p", "a cat", labels=labels)


def interpreter(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_clips_are_whole_and_the_last_is_extended_backwards() -> None:
    assert cut(VideoInfo(957, 16.0, 4, 4), 2)[-2:] == [Span(896, 928), Span(925, 957)]
    assert len(cut(VideoInfo(957, 16.0, 4, 4), 2)) == 30  # 29 whole, one overlapping
    assert cut(VideoInfo(64, 16.9, 4, 4), 2) == [Span(0, 32), Span(32, 64)]  # int(16.9) = 16
    assert cut(VideoInfo(31, 16.0, 4, 4), 2) == [Span(0, 31)]


def test_the_prompts_longest_dimension_rules_under_the_released_rule() -> None:
    both = sample(9, dimension=["aesthetic_quality", "overall_consistency"])
    assert clip_seconds("aesthetic_quality", "prompt", both) == 10
    assert clip_seconds("aesthetic_quality", "dimension", both) == 2
    assert clip_seconds("human_action", "dimension", both) == 10
    assert clip_seconds("human_action", "two_seconds", both) == 2
    with pytest.raises(ScoreError, match="not known"):
        clip_seconds("human_action", "prompt", sample(9))


def test_a_long_video_is_the_mean_of_its_clips() -> None:
    scorer = temporal_flickering.SCORER.build(temporal_flickering.SCORER.config(clips="two_seconds"), NetworkCache())
    watcher = scorer.watch(sample(6))
    for index, gray in enumerate([0, 51, 0, 51, 51, 51]):
        watcher.see(index, np.full((4, 4, 3), gray, np.uint8))
    score = watcher.scores()["temporal_flickering"]
    # clips 0..3 (steps 51, 51, 51: 0.8) and 2..5 (51, 0, 0: mean 17: 238/255)
    assert score.value == pytest.approx((0.8 + 238 / 255) / 2)
    assert score.details["clips"] == [[0, 4], [2, 6]]
    assert score.details["clip_seconds"] == [2.0, 2.0]


@pytest.mark.skipif(not TABLES.is_dir(), reason="the mapping tables are not in this checkout")
def test_fusion_maps_the_fast_score_and_leaves_zero_alone() -> None:
    table = read_table(TABLES / "subject_mapping_table.yaml")
    halfway = (0.655812085783768 + 0.706856949045235) / 2
    fused, mapped = fuse(0.9, 0.015, table, 0.5)
    assert mapped == pytest.approx(halfway)
    assert fused == pytest.approx((0.9 + halfway) / 2)
    assert fuse(0.9, 0.0, table, 0.5) == (0.9, 0.0)


def test_a_wrong_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("0.0: 0.0\n1.0: 1.0\n")
    with pytest.raises(RecordError, match="2 knots, expected 101"):
        read_table(tmp_path / "t.yaml")


def test_fusing_whole_videos_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be 'whole'"):
        subject_consistency.SubjectConfig(fast="dinov2")


def test_consistency_and_conformity_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, -1.0]])
    consistency, conformity = Consistency(), Conformity(torch.tensor([0.0, 5.0]))
    for part in (features[:1], features[1:]):
        consistency.add(part)
        conformity.add(part)
    assert consistency.value() == 0.0  # right angles, then opposite: cut off at 0
    assert conformity.value() == pytest.approx(0.4)  # max 1, neighbours 0


def test_i2v_totals() -> None:
    ones = dict.fromkeys([*vbench_totals.I2V_DIMENSIONS, *vbench_totals.LONG_DIMENSIONS], 1.0)
    still = {**ones, "camera_motion": 0.0}
    assert vbench_totals.i2v(ones) == pytest.approx(1.0)
    assert vbench_totals.i2v(still) == pytest.approx(2 / 2.1)
    assert vbench_totals.i2v_total(still) - vbench_totals.i2v_total(ones) == pytest.approx((2 / 2.1 - 1) / 2)


@pytest.fixture
def grit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    weights = tmp_path / "grit_model" / "grit_b_densecap_objectdet.pth"
    weights.parent.mkdir()
    weights.touch()
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "bert-base-uncased" / "vocab.txt").touch()
    return tmp_path


def test_another_interpreter_scores_and_keeps_details(grit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, interpreter(grit, FAKE.format(python=sys.executable, value="0.25")))
    assert not [need.missing() for need in object_class.SCORER.needs if need.missing()]
    loaded = NetworkCache()
    scorer = object_class.SCORER.build(DimensionConfig(), loaded)
    found = [scorer.watch(sample(2, **AUXILIARY)).scores()["object_class"] for _ in range(2)]
    assert [score.value for score in found] == [0.25, 0.25]
    assert found[0].details == {"heard": {"object": "cat"}}
    with pytest.raises(ScoreError, match="auxiliary_info"):
        scorer.watch(sample(2))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("#!{python}\nimport sys\nsys.exit('no detectron2')\n", "no detectron2"),
        ("#!{python}\nprint('hello', flush=True); import time; time.sleep(5)\n", "no JSON object"),
        ("#!{python}\nimport time\ntime.sleep(20)\n", "no answer in 1 s"),
        (FAKE.replace("{value}", "float('nan')"), "no JSON object"),
    ],
)
def test_a_broken_interpreter_is_an_error_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, what: str
) -> None:
    monkeypatch.setenv(VARIABLE, interpreter(tmp_path, text.format(python=sys.executable)))
    with pytest.raises(RunError) as caught:
        Worker(timeout_s=1.0 if "20" in text else 60.0).ask({"dimension": "scene", "auxiliary": None})
    assert what in str(caught.value)


def test_the_real_worker_reports_what_a_video_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This interpreter has no detectron2: the worker ends with the reason."""
    monkeypatch.setenv(VARIABLE, sys.executable)
    with pytest.raises(RunError, match="ended") as caught:
        Worker(timeout_s=120).ask(
            {"dimension": "object_class", "video": "x.mp4", "prompt": "a cat", "weights": "w", "auxiliary": {}}
        )
    assert "detectron2" in str(caught.value)


def test_without_an_interpreter_the_need_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "not run: needs ASTRO_VBENCH_PYTHON" in object_class.SCORER.needs[0].missing()

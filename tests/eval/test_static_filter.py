"""VBench's static filter: its limits by hand, the released code's own flows and verdicts, and the first five static of
more videos.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.decode import frames, probe
from eval.contract import NetworkCache, Sample, Score, VideoInfo
from eval.inputs.requirements import requirements
from eval.metrics import temporal_flickering
from eval.metrics.temporal_flickering import FlickerConfig
from eval.scoring.run import Progress, Request, evaluate
from eval.vbench import adapter, static, vbench_files
from eval.vbench.static import Limits, StaticScorer
from tests.tiny_networks import sample_of, show

NAME = "temporal_flickering"
H, W, T = 128, 192, 8


class Constant:
    """Scores 0.5 and has seen nothing."""

    def watch(self, sample: Sample) -> Constant:
        return self

    def see(self, index: int, frame_HWC: np.ndarray) -> None: ...

    def scores(self) -> dict[str, Score]:
        return {NAME: Score(0.5, {"mae": [1.0]})}


def judged(
    monkeypatch: pytest.MonkeyPatch, steps: list[float], ends: tuple[float, float] = (0.0, 0.0), side: int = 256
) -> Score:
    """The filter on a video whose flows are these."""
    flows = iter([*steps, *ends])
    monkeypatch.setattr(static, "largest_flow", lambda *_: next(flows))
    frames_THWC = np.zeros((len(steps) + 1, side, side + 8, 3), np.uint8)
    info = VideoInfo(len(frames_THWC), 8.0, side + 8, side)
    return show(
        StaticScorer(Constant(), torch.nn.Identity()).watch(replace(sample_of(frames_THWC), info=info)), frames_THWC
    )[NAME]


def test_limits_by_hand():
    # 256 pixels: 3 px; 16 frames: round(2 * 16 / 16) = 2 steps; ends 3 * 2 * 2 = 12
    found = Limits(16, 256)
    assert (found.step_px, found.steps, found.ends_px) == (3.0, 2, 12.0)
    # 480 pixels: 3 * 480 / 256 = 5.625; 81 frames: round(10.125) = 10; ends 112.5
    found = Limits(81, 480)
    assert (found.step_px, found.steps, found.ends_px) == (5.625, 10, 112.5)


@pytest.mark.parametrize(("steps", "ends", "is_static"), [
    ([0.0] * 15, (0.0, 0.0), True), ([3.0] * 15, (0.0, 0.0), True),  # exactly 3 is not over 3
    ([3.1] * 2 + [0.0] * 13, (12.0, 12.0), True), ([3.1] * 3 + [0.0] * 12, (0.0, 0.0), False),
    ([0.0] * 15, (12.1, 0.0), False), ([0.0] * 15, (0.0, 12.1), False),
])  # fmt: skip
def test_what_is_static(steps, ends, is_static, monkeypatch):
    found = judged(monkeypatch, steps, ends)
    assert (found.value, found.details["static"]) == (0.5 if is_static else None, is_static)
    assert found.details["mae"] == [1.0]


def test_flows_are_no_longer_computed_once_enough_has_moved(monkeypatch):
    assert judged(monkeypatch, [9.0] * 15).details["largest_flow_px"] == [9.0] * 3


@pytest.fixture
def raft(tmp_path, monkeypatch) -> Path:
    """Random weights as released: under `module.`, where VBench keeps them."""
    pytest.importorskip("vbench")
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = adapter.module("third_party.RAFT.core.raft").RAFT(
        Namespace(small=False, mixed_precision=False, alternate_corr=False)
    )
    path = vbench_files.path_of("raft")
    path.parent.mkdir(parents=True)
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("limit_px", [1e-6, 1e6])
def test_flows_and_verdict_are_the_released_codes(limit_px, raft, tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    noise = np.random.default_rng(0).integers(0, 255, (H // 8, W // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    path = tmp_path / "a.mp4"
    write_mp4([np.roll(noise, 5 * index, axis=1) for index in range(T)], path, 8)
    module = adapter.module("cli.static_filter")
    monkeypatch.setattr(module, "DEVICE", "cpu")
    theirs = module.StaticFilter(
        Namespace(model=str(raft), small=False, mixed_precision=False, alternate_corr=False), "cpu"
    )
    seen_scores: list[list[float]] = []
    real = theirs.check_static
    theirs.check_static = lambda scores: seen_scores.append([float(score) for score in scores]) or real(scores)
    set_params = theirs.set_params

    def with_limit(frame, count):
        set_params(frame, count)
        theirs.params["thres"] *= limit_px

    theirs.set_params = with_limit
    verdict = theirs.infer(str(path))
    monkeypatch.setattr(static, "FLOW_PX", 3.0 * limit_px)
    scorer = temporal_flickering.SCORER.build(FlickerConfig(static_filter=True), NetworkCache())
    info = probe(path)
    watcher = scorer.watch(Sample(path, "0" * 64, info, "p", "p"))
    for index, frame_HWC in frames(path, "av"):
        watcher.see(index, frame_HWC)
    found = watcher.scores()[NAME]
    assert found.details["static"] is verdict is (limit_px > 1)
    ours = [*found.details["largest_flow_px"], *found.details["ends_flow_px"]]
    assert len(ours) == (T + 1 if verdict else 2)  # a moving video is given up after round(2 * 8 / 16) + 1 steps
    assert ours == pytest.approx(seen_scores[0][: len(ours)], rel=1e-3)


def test_the_filter_needs_raft_and_the_plain_score_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(tmp_path))
    lacking = [need.missing() for need in temporal_flickering.SCORER.config_needs(FlickerConfig(static_filter=True))]
    assert any("raft-things.pth" in text for text in lacking)
    assert temporal_flickering.SCORER.config_needs(FlickerConfig()) == ()
    assert temporal_flickering.SCORER.files(FlickerConfig()) == ()


def test_vbench_looks_at_25_videos_for_five_static_ones():
    pytest.importorskip("vbench")
    assert requirements("vbench").extra == {NAME: 25}
    assert requirements("vbench-long").extra == {}


def test_the_first_static_ones_of_more_videos_count(fake, suite_of, folder_of, tmp_path):
    """Two needed of four: of the first prompt videos 1 and 3 apply, of the second none."""
    suite_of('samples = 2\nscorers = [{ scorer = "brightness", candidates = 4 }]')
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    folder = folder_of("videos", ("a cat", "a dog"), seeds=range(5))
    (folder / "manifest.jsonl").unlink()
    for number, prompt in enumerate(("a cat", "a dog")):
        for seed in range(5):
            (folder / f"{number:03d}-{seed}.mp4").rename(folder / f"{prompt}-{seed}.mp4")
    fake.bad |= {f"{prompt}-{seed}.mp4": None for prompt in ("a cat", "a dog") for seed in range(5)}
    fake.bad |= {"a cat-1.mp4": 10.0, "a cat-3.mp4": 20.0, "a cat-4.mp4": 90.0}
    report = evaluate(Request("test", folder, "arm", tmp_path / "r", prompts=str(prompts)), Progress())
    (outcome,) = report.seeds[0].outcomes
    assert (outcome.scores, outcome.coverage, outcome.counted) == ([15.0, None], "4/4", 2)
    assert report.complete

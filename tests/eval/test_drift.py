"""Drift on an inner scorer of known values: which frames are in which clip, and the numbers of the clips by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.contract import Frame, NetworkCache, Sample, Score, ScoreError, VideoInfo
from eval.metrics import drift

FPS = 4


def sample(frames: int) -> Sample:
    return Sample(Path("video.mp4"), "0", VideoInfo(frames, FPS, 8, 8), "p", "a cat")


class Brightness:
    """Stands where imaging quality does: mean pixel / 255; notes the frames of each clip."""

    def __init__(self) -> None:
        self.clips: list[list[int]] = []
        self.lengths: list[int] = []

    def watch(self, sample: Sample) -> Brightness.Watcher:
        self.clips.append([])
        self.lengths.append(sample.info.frames)
        return Brightness.Watcher(self.clips[-1])

    class Watcher:
        def __init__(self, seen: list[int]) -> None:
            self.seen, self.values = seen, []

        def see(self, index: int, frame_HWC: Frame) -> None:
            assert index == len(self.values)  # clips count from 0
            self.seen.append(int(frame_HWC[0, 0, 0]))
            self.values.append(frame_HWC.mean() / 255)

        def scores(self) -> dict[str, Score]:
            return {"imaging_quality": Score(float(np.mean(self.values)))}


def shown(frames: int, seconds: int = 2) -> tuple[dict[str, Score], Brightness]:
    inner = Brightness()
    watcher = drift.DriftScorer(inner, seconds).watch(sample(frames))
    for index in range(frames):
        watcher.see(index, np.full((8, 8, 3), index, np.uint8))
    return watcher.scores(), inner


def test_clips_are_two_seconds_and_the_last_reaches_back():
    scores, inner = shown(20)  # 2 s of 4 fps: 8 frames; 8 + 8 + a rest of 4
    assert inner.clips == [list(range(8)), list(range(8, 16)), list(range(12, 20))]
    assert inner.lengths == [8, 8, 8]
    assert scores["drift"].details["clips"] == [[0, 8], [8, 16], [12, 20]]


def test_the_numbers_by_hand():
    # clip means of frames 0-7, 8-15, 16-23: 3.5, 11.5, 19.5 grey levels -> x 100/255
    scores, _ = shown(24)
    unit = 100 / 255
    assert scores["drift"].value == pytest.approx(8 * unit)  # sample deviation of -8, 0, 8 is 8
    assert scores["drift.quality"].value == pytest.approx(11.5 * unit)
    assert scores["drift.last_first"].value == pytest.approx(16 * unit)  # the last of three clips minus the first
    assert scores["drift.slope"].value == pytest.approx(
        16 * unit / 4 * 60
    )  # 16 in the 4 s between the middles, per minute


def test_a_still_video_does_not_drift():
    assert drift.drift_scores([70.0] * 30, list(range(30)))["drift"] == 0.0
    rows = drift.drift_scores([80.0] * 3 + [70.0] * 24 + [65.0] * 3, list(range(30)))
    assert rows["drift.last_first"] == -15.0  # a tenth of 30 clips is 3
    assert rows["drift.slope"] < 0


def test_one_clip_is_too_short():
    with pytest.raises(ScoreError, match="more than one clip"):
        drift.DriftScorer(Brightness(), 2).watch(sample(8))


def test_it_needs_what_imaging_quality_needs(monkeypatch, tmp_path):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    assert any("MUSIQ" in need.missing() for need in drift.SCORER.needs)


def test_the_real_inner_scorer_on_random_weights(monkeypatch, tmp_path):
    """Through MUSIQ itself, at its real size, on two clips of two tiny frames: the mean of the clips is the mean of all
    frames.
    """
    torch = pytest.importorskip("torch")
    arch = pytest.importorskip("pyiqa.archs.musiq_arch")
    torch.manual_seed(0)
    path = tmp_path / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth"
    path.parent.mkdir()
    torch.save(arch.MUSIQ(pretrained=False).state_dict(), path)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    config = drift.DriftConfig(clip_seconds=1)
    watcher = drift.SCORER.build(config, NetworkCache()).watch(
        Sample(Path("v.mp4"), "0", VideoInfo(4, 2, 64, 48), "p", "a cat")
    )
    frames = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        watcher.see(index, frame)
    scores = watcher.scores()
    quality = scores["drift"].details["quality"]
    assert len(quality) == 2
    assert scores["drift.quality"].value == pytest.approx(np.mean(quality))
    assert scores["drift"].value == pytest.approx(np.std(quality, ddof=1))
    assert drift.SCORER.files(config) == (path,)

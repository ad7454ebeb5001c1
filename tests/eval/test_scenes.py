"""VBench-Long's scenes: where PySceneDetect cuts, and that every scene is scored as a video of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.decode import frames, probe
from eval.contract import NetworkCache, Sample, Score, ScoreError
from eval.metrics import catalog, subject_consistency, temporal_flickering
from eval.metrics.temporal_flickering import FlickerConfig
from eval.vbench.long import Span, clip_seconds
from eval.vbench.scenes import PACKAGE, Scenes, scenes

pytest.importorskip("scenedetect")
pytest.importorskip("cv2")
NAME, FPS = "temporal_flickering", 8
FIRST, SECOND = 20, 24  # frames; PySceneDetect takes no scene below 15


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def written(path: Path, pictures: list[np.ndarray]) -> Sample:
    write_mp4(pictures, path, FPS)
    return Sample(path, str(path), probe(path), "p", "a cat")


@pytest.fixture
def cut_once(tmp_path) -> Sample:
    return written(
        tmp_path / "cut.mp4", [picture(0)] * FIRST + [np.roll(picture(1), 2 * index, axis=1) for index in range(SECOND)]
    )


def shown(scorer, sample: Sample) -> dict[str, Score]:
    watcher = scorer.watch(sample)
    for index, frame_HWC in frames(sample.path, "av"):
        watcher.see(index, frame_HWC)
    return watcher.scores()


def test_a_cut_parts_two_scenes(cut_once):
    assert scenes(cut_once.path, cut_once.video_hash, cut_once.info.frames) == (
        Span(0, FIRST),
        Span(FIRST, FIRST + SECOND),
    )


def test_a_video_without_a_cut_is_one_scene(tmp_path):
    sample = written(tmp_path / "whole.mp4", [picture(0)] * 40)
    assert scenes(sample.path, sample.video_hash, sample.info.frames) == (Span(0, 40),)


def test_scenes_are_scored_apart_and_averaged(cut_once):
    found = shown(temporal_flickering.SCORER.build(FlickerConfig(clips="scenes"), NetworkCache()), cut_once)[NAME]
    assert found.details["scenes"] == [[0, FIRST], [FIRST, FIRST + SECOND]]
    still, moving = found.details["scene_values"]
    assert still > 0.999 > moving  # the jump between them is in neither
    assert found.value == pytest.approx((still + moving) / 2)
    plain = shown(temporal_flickering.SCORER.build(FlickerConfig(clips="two_seconds"), NetworkCache()), cut_once)[NAME]
    assert plain.details["clips"] == [[0, 16], [16, 32], [28, 44]]  # the second clip holds the jump
    assert plain.value != pytest.approx(found.value, abs=1e-4)


def test_clips_of_a_scene_have_two_seconds_and_end_with_it(cut_once):
    seen: list[tuple[int, float]] = []

    class Recorder:
        def watch(self, sample: Sample):
            seen.append((sample.info.frames, sample.info.fps))
            return self

        def see(self, index: int, frame_HWC: np.ndarray) -> None: ...

        def scores(self) -> dict[str, Score]:
            return {NAME: Score(1.0)}

    assert shown(Scenes(Recorder()), cut_once)[NAME].value == 1.0
    assert seen == [(FIRST, 8.0), (SECOND, 8.0)]
    assert clip_seconds("human_action", "scenes", cut_once) == 2


def test_scenes_are_asked_of_every_dimension_that_is_cut(tmp_path):
    for scorer in (temporal_flickering, subject_consistency):
        config = scorer.SCORER.config.model_validate({"clips": "scenes"})
        assert PACKAGE in scorer.SCORER.config_needs(config)
        assert PACKAGE not in scorer.SCORER.config_needs(scorer.SCORER.config())
    assert PACKAGE.missing() == ""
    assert NAME in catalog.declarations()


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(ScoreError, match="PySceneDetect cannot read it"):
        scenes(path, "0", 5)

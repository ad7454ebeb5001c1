"""The scorers hpsv3 and videoalign of the evaluation suite: through their declarations, on tiny released files."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reward_folders as folders
import torch

from eval.contract import NetworkCache, Sample, ScoreError, Segment, VideoInfo
from eval.metrics import catalog

PROMPT = "a red circle"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    folders.write_hpsv3(root)
    folders.write_videoalign(root)
    return root


@pytest.fixture(autouse=True)
def _here(checkpoints, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(checkpoints))


def sample(frames: int, fps: float = 4.0, prompt: str = PROMPT, segments: tuple[Segment, ...] = ()) -> Sample:
    return Sample(Path("v.mp4"), "0" * 64, VideoInfo(frames, fps, 56, 28), "p", prompt, segments=segments)


def video(frames: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (frames, 28, 56, 3), dtype=np.uint8)


def build(name: str, loaded: NetworkCache, **config):
    declaration = catalog.find(name)
    return declaration.build(declaration.config(dtype="float32", **config), loaded)


def score(scorer, item: Sample, frames: np.ndarray):
    watcher = scorer.watch(item)
    for index, frame in enumerate(frames):
        watcher.see(index, frame)
    return watcher.scores()


@pytest.fixture(scope="module")
def loaded() -> NetworkCache:
    return NetworkCache()


def test_both_are_ready_and_name_their_files(checkpoints):
    for name, files in (("hpsv3", 3), ("videoalign", 5)):
        declaration = catalog.find(name)
        assert not any(need.missing() for need in catalog.find(name).needs)
        found = declaration.files(declaration.config())
        assert len(found) == files
        assert all(path.is_file() and checkpoints in path.parents for path in found)


def test_what_is_missing_is_said_without_torch(tmp_path):
    code = (
        "import sys; from eval.metrics import hpsv3, videoalign\n"
        "print([need.missing() for need in (*hpsv3.SCORER.needs, *videoalign.SCORER.needs)])\nassert 'torch' "
        "not in sys.modules"
    )
    root = Path(__file__).parents[2]
    environment = {"ASTRO_CHECKPOINTS": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "put HPSv3.safetensors of MizzenAI/HPSv3 at" in done.stdout
    assert "put the folder of KlingTeam/VideoReward" in done.stdout


def test_hpsv3_scores_every_frame_once_and_keeps_the_best(loaded):
    scorer = build("hpsv3", loaded)
    found = score(scorer, sample(7), video(7))
    frames = found["hpsv3.all"].details["frames"]
    assert len(frames) == 7
    assert frames == pytest.approx(scorer.scorer.score(video(7), PROMPT).tolist(), abs=1e-5)
    assert found["hpsv3.all"].value == pytest.approx(sum(frames) / 7)
    assert found["hpsv3.top30"].value == pytest.approx(sum(sorted(frames)[-2:]) / 2, abs=1e-6)  # int(.3 x 7) = 2
    half = score(build("hpsv3", loaded, fraction=0.5), sample(4), video(4))
    assert half["hpsv3.top30"].value == pytest.approx(
        sum(sorted(half["hpsv3.all"].details["frames"])[-2:]) / 2, abs=1e-6
    )


def test_videoalign_gives_raw_and_normalised_and_their_sums(loaded):
    scorer = build("videoalign", loaded)
    found = score(scorer, sample(9), video(9))
    chosen = [0, 3, 5, 8]  # 9 / 4 x 2 = 4.5 -> 4 of 0..8: 0, 2.67, 5.33, 8
    raw = scorer.scorer.raw([video(9)[chosen]], [PROMPT])[0].tolist()
    for key, value in zip(("vq", "mq", "ta"), raw, strict=True):
        assert found[f"videoalign.{key}_raw"].value == pytest.approx(value, abs=1e-5)
        mean, deviation = folders.NORM[f"{key.upper()}_mean"], folders.NORM[f"{key.upper()}_std"]
        assert found[f"videoalign.{key}"].value == pytest.approx((value - mean) / deviation, abs=1e-5)
    for ending in ("", "_raw"):
        parts = sum(found[f"videoalign.{key}{ending}"].value for key in ("vq", "mq", "ta"))
        assert found[f"videoalign.overall{ending}"].value == pytest.approx(parts)
    [clip] = found["videoalign.overall"].details["clips"]
    assert (clip["start"], clip["end"], clip["frames"], clip["prompt"]) == (0, 9, 4, PROMPT)


def test_gray_changes_motion_quality_alone_and_network_and_passes_are_shared():
    loaded = NetworkCache()
    colour, gray = build("videoalign", loaded), build("videoalign", loaded, grayscale=True)
    assert colour.scorer is gray.scorer
    looked, raw = [], colour.scorer.raw

    def counted(*given, gray=False):
        looked.append(gray)
        return raw(*given, gray=gray)

    colour.scorer.raw = counted
    one, other = score(colour, sample(8), video(8)), score(gray, sample(8), video(8))
    assert one["videoalign.vq_raw"].value == other["videoalign.vq_raw"].value
    assert one["videoalign.ta_raw"].value == other["videoalign.ta_raw"].value
    assert abs(one["videoalign.mq_raw"].value - other["videoalign.mq_raw"].value) > 1e-4
    assert looked == [False, True]  # colour and luma of one clip, once each for the two scorers
    luma = raw([video(8)[[0, 2, 5, 7]]], [PROMPT], gray=True)[0, 1].item()  # 7 k / 3
    assert other["videoalign.mq_raw"].value == pytest.approx(luma, abs=1e-5)


def test_positions_are_part_of_the_config_and_change_the_score(loaded):
    one, other = (
        score(build("videoalign", loaded, positions=way), sample(8), video(8)) for way in ("official", "mrope")
    )
    assert abs(one["videoalign.ta_raw"].value - other["videoalign.ta_raw"].value) > 1e-4


def test_stitched_clips_begin_a_second_before_their_segment(loaded):
    scorer = build("videoalign", loaded, stitched=True)
    segments = (Segment(0.0, 2.0, "a"), Segment(2.0, 4.0, "b"), Segment(4.0, 6.0, "c"))
    item = sample(24, prompt="", segments=segments)  # 4 fps
    frames = video(24)
    watcher = scorer.watch(item)
    kept_frames = []
    for index, frame in enumerate(frames):
        watcher.see(index, frame)
        kept_frames.append(sum(len(clip.kept) for clip in watcher.clips))
    found = watcher.scores()
    clips = found["videoalign.overall"].details["clips"]
    assert [(clip["start"], clip["end"], clip["prompt"]) for clip in clips] == [
        (0, 8, "a"),
        (4, 16, "b"),
        (12, 24, "c"),
    ]
    assert [clip["frames"] for clip in clips] == [4, 6, 6]  # 2 s at 2 fps; 3 s at 2 fps
    # second clip: frames 4..15, six of them: 2.2 k rounded
    raw = scorer.scorer.raw([frames[[4, 6, 8, 11, 13, 15]]], ["b"])[0].tolist()
    assert list(clips[1]["raw"].values()) == pytest.approx(raw, abs=1e-5)
    assert found["videoalign.ta_raw"].value == pytest.approx(sum(clip["raw"]["ta"] for clip in clips) / 3)
    assert max(kept_frames) <= 8  # never all frames: a clip's frames go when it is scored
    assert kept_frames[-1] == 0


@pytest.mark.parametrize("name", ["hpsv3", "videoalign"])
@pytest.mark.parametrize(("prompt", "message"), [("", "prompt: missing"), ("a <|Reward|>", "special token")])
def test_a_prompt_that_cannot_be_scored_is_named(loaded, name, prompt, message):
    with pytest.raises(ScoreError, match=message):
        build(name, loaded).watch(sample(8, prompt=prompt))


def test_clips_that_are_too_short_or_without_switches_are_named(loaded):
    with pytest.raises(ScoreError, match=r"frames: found 1 from 0 to 0.25 s, expected 2 or more"):
        build("videoalign", loaded).watch(sample(1))
    with pytest.raises(ScoreError, match="segments: missing"):
        build("videoalign", loaded, stitched=True).watch(sample(8))


def test_a_score_that_is_not_finite_is_refused(loaded, monkeypatch):
    scorer = build("hpsv3", loaded)
    monkeypatch.setattr(scorer.scorer.tower, "read", lambda *given: torch.full((4, 1, 2), math.nan))
    with pytest.raises(ScoreError, match="not finite at one of frames 0 to 3"):
        score(scorer, sample(5), video(5))
    align = build("videoalign", NetworkCache())
    monkeypatch.setattr(align.scorer.tower, "read", lambda *given: torch.full((1, 3, 1), math.inf))
    with pytest.raises(ScoreError, match="not finite, or not seen, from frame 0 to 7"):
        score(align, sample(8), video(8))

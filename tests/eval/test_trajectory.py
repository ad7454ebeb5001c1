"""The trajectory measures by hand, and the scorer on moving pictures."""

import numpy as np
import pytest
import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.models.vae import WanVAE
from eval.contract import NetworkCache, ScoreError, Segment
from eval.metrics import trajectory
from eval.watchers.trajectories import evenness, measure, project
from tests.tiny_networks import clip_state, put, sample_of, show, video
from tests.wan_folder import tiny_vae


def test_projection_keeps_distances_of_points_on_a_plane():
    plane = np.array([[0, 0], [3, 0], [3, 1], [0, 1]], float)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))
    points, explained = project(plane @ rotation[:2] + 5, components=2)
    assert explained == pytest.approx(1)
    before = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points[None], axis=-1), before, atol=1e-12)
    # the first component is the long side: variance 2.25 against 0.25, so 0.9 of all
    assert project(plane @ rotation[:2], components=1)[1] == pytest.approx(0.9)
    np.testing.assert_allclose(np.abs(points[:, 0]), 1.5)


def test_projection_of_still_and_short_videos():
    points, explained = project(np.ones((4, 3)), components=2)
    assert explained == 0
    assert not points.any()
    assert project(np.array([[1.0], [3.0]]), components=2)[0].tolist() == [
        [-1, 0],
        [1, 0],
    ]  # one feature: the second component is 0


def test_measures_by_hand():
    # event 1 on x = 0: (0, -1), (0, 1), mean (0, 0), spread 1; event 2 at (3, 4): four times the same point, spread 0
    points = np.array([[0, -1], [0, 1], [3, 4], [3, 4], [3, 4], [3, 4]], float)
    shape = measure(points, [[0, 1], [2, 3, 4, 5]], bridge=2)
    assert shape.spread == pytest.approx(0.5)  # mean of 1 and 0
    assert shape.displacement == pytest.approx(5)  # from (0, 0) to (3, 4)
    assert shape.step == pytest.approx(18**0.5)  # from (0, 1) to (3, 4)
    # bridge: frames 0..3, steps 2, sqrt 18, 0: largest share sqrt 18 / (2 + sqrt 18) = 0.6796; (1 - 0.6796) / (1 - 1/3)
    # = 0.4806
    assert shape.smoothness == pytest.approx((1 - 18**0.5 / (2 + 18**0.5)) / (2 / 3))


def test_an_even_bridge_is_1_and_a_jump_is_0():
    line = np.linspace(0, 1, 9)[:, None]
    assert evenness(line) == pytest.approx(1)
    assert evenness(np.repeat([[0.0], [7.0]], 4, axis=0)) == 0
    assert evenness(np.zeros((5, 2))) is None
    assert evenness(line[:2]) is None


def test_means_over_switches():
    points = np.array([[0], [0], [1], [1], [4], [4]], float)  # switches of 1 and 3
    shape = measure(points, [[0, 1], [2, 3], [4, 5]], bridge=1)
    assert (shape.spread, shape.displacement, shape.step) == (0, 2, 2)
    assert shape.smoothness is None  # bridges of one step say nothing


def gray(levels):
    return np.broadcast_to(np.asarray(levels, np.uint8)[:, None, None, None], (len(levels), 36, 64, 3)).copy()


SEGMENTS = (Segment(0.0, 1.0, "a"), Segment(1.0, 2.0, "b"))


def scores_of(levels, **config):
    frames = gray(levels)
    scorer = trajectory.SCORER.build(trajectory.TrajectoryConfig(**config), NetworkCache())
    return show(scorer.watch(sample_of(frames, segments=SEGMENTS)), frames)


def test_pixel_distances_are_rms_gray_levels():
    jump = scores_of([0] * 8 + [51] * 8)  # 8 fps: the switch is at frame 8; 51 of 255 is 0.2
    assert jump["trajectory.within_event_spread"].value == pytest.approx(0, abs=1e-12)
    assert jump["trajectory.cross_event_displacement"].value == pytest.approx(0.2)
    assert jump["trajectory.cross_event_step"].value == pytest.approx(0.2)
    assert jump["trajectory.cross_event_smoothness"].value == pytest.approx(0)
    bridge = scores_of([0] * 4 + [6, 12, 18, 24, 30, 36, 42, 48] + [51] * 4)
    assert bridge["trajectory.cross_event_step"].value == pytest.approx(6 / 255)
    assert bridge["trajectory.cross_event_smoothness"].value > 0.9
    assert bridge["trajectory.within_event_spread"].value > 0.02
    assert bridge["trajectory.within_event_spread"].details["explained"] == pytest.approx(1)
    assert len(bridge["trajectory.within_event_spread"].details["points"]) == 16


def test_stride_takes_every_second_frame():
    one, two = scores_of([0] * 8 + [51] * 8), scores_of([0] * 8 + [51] * 8, stride=2)
    assert len(two["trajectory.within_event_spread"].details["points"]) == 8
    for metric in ("cross_event_displacement", "cross_event_step"):
        assert two[f"trajectory.{metric}"].value == pytest.approx(one[f"trajectory.{metric}"].value)
    with pytest.raises(ScoreError, match="no frame of 1-2 s at stride 16"):
        scores_of([0] * 16, stride=16)


def test_one_prompt_is_one_event():
    frames = gray([0, 51])
    scorer = trajectory.SCORER.build(trajectory.TrajectoryConfig(), NetworkCache())
    scores = show(scorer.watch(sample_of(frames)), frames)
    assert scores["trajectory.within_event_spread"].value == pytest.approx(0.1)
    assert [scores[f"trajectory.cross_event_{name}"].value for name in ("displacement", "step", "smoothness")] == [
        None
    ] * 3


def test_pixels_need_nothing_and_clip_its_weights(checkpoints):
    assert trajectory.SCORER.needs == ()
    assert trajectory.SCORER.files(trajectory.TrajectoryConfig()) == ()
    config = trajectory.TrajectoryConfig(encoder="clip")
    with pytest.raises(CheckpointError, match=r"ViT-L-14\.pt"):
        trajectory.SCORER.build(config, NetworkCache())
    path = put(clip_state(), checkpoints / "clip" / "ViT-L-14.pt")
    assert trajectory.SCORER.files(config) == (path,)
    frames = video(16)
    scores = show(trajectory.SCORER.build(config, NetworkCache()).watch(sample_of(frames, segments=SEGMENTS)), frames)
    assert 0 < scores["trajectory.within_event_spread"].value < 2
    assert set(scores) == {info.id for info in trajectory.SCORER.metrics}


def test_latents_are_the_vaes_own(tmp_path, monkeypatch):
    """9 frames: latents of frame 0, of 1-4 and of 5-8; a tenth makes none.

    The points are the whole video's encoding, projected.
    """
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    tiny_vae().save_pretrained(tmp_path / "Wan2.1-T2V-1.3B-Diffusers" / "vae")
    frames = video(10, 32, 48)
    config = trajectory.TrajectoryConfig(encoder="vae", stride=4)
    segments = (Segment(0, 1, "a"), Segment(1, 2.5, "b"))
    found = show(
        trajectory.SCORER.build(config, NetworkCache()).watch(sample_of(frames, segments=segments, fps=4.0)), frames
    )
    z = (
        WanVAE(tiny_vae())
        .encode(torch.from_numpy(frames[None, :9]).permute(0, 1, 4, 2, 3).float() / 255)[0]
        .flatten(1)
        .numpy()
    )
    points, _ = project(z / z.shape[1] ** 0.5, components=2)
    np.testing.assert_allclose(found["trajectory.within_event_spread"].details["points"], points, atol=2e-5)
    # one latent in the first event, two in the second: spread 0 and half their distance
    half = np.linalg.norm(points[2] - points[1]) / 2
    assert found["trajectory.within_event_spread"].value == pytest.approx(half / 2, abs=1e-5)
    assert trajectory.SCORER.files(config) == (
        tmp_path / "Wan2.1-T2V-1.3B-Diffusers" / "vae" / "diffusion_pytorch_model.safetensors",
    )


def test_latents_need_a_vae_its_stride_and_whole_cells(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    with pytest.raises(ValueError, match="expected 4"):
        trajectory.TrajectoryConfig(encoder="vae")
    config = trajectory.TrajectoryConfig(encoder="vae", stride=4)
    with pytest.raises(CheckpointError, match=r"no Wan 2\.1 folder"):
        trajectory.SCORER.build(config, NetworkCache())
    tiny_vae().save_pretrained(tmp_path / "Wan2.1-T2V-1.3B-Diffusers" / "vae")
    frames = video(5, 36, 64)
    with pytest.raises(ScoreError, match="multiples of 8"):
        show(trajectory.SCORER.build(config, NetworkCache()).watch(sample_of(frames)), frames)

"""Flow errors by hand, references, RAFT on tiny input in torchvision's layout, and DIS on a moving texture."""

import numpy as np
import pytest
import torch
from torchvision.models import optical_flow

from astro_cli.config.errors import CheckpointError
from astro_cli.generate.mp4 import write_mp4
from astro_cli.models import raft
from astro_cli.zoo.raft_files import RAFT_FILES
from eval.contract import NetworkCache, ScoreError
from eval.metrics import flow, flow_dis
from eval.watchers.flow import FlowScorer, flow_metrics
from eval.watchers.flow_errors import ErrorSums, magnitude
from tests.tiny_networks import put, sample_of, show, video

H, W = 6, 10


def constant(x, y):
    return np.broadcast_to(np.array([x, y], np.float32)[:, None, None], (2, H, W)).copy()


def errors(*pairs):
    sums = ErrorSums()
    for found, reference in pairs:
        sums.add(found, reference)
    return sums.result()


def test_a_translation_by_3_4_is_5_pixels_long():
    assert magnitude(constant(3, 4)) == 5.0


@pytest.mark.parametrize(
    ("found", "reference", "epe", "over_1px", "over_3px", "f1_all"),
    [
        ((3, 4), (3, 4), 0, 0, 0, 0),
        ((0, 0), (1, 0), 1, 0, 0, 0),  # exactly 1 pixel is not over 1 pixel
        ((0, 0), (0, 2), 2, 100, 0, 0),
        ((0, 0), (0, 3), 3, 100, 0, 0),  # exactly 3 neither
        ((3, 4), (0, 0), 5, 100, 100, 100),
        ((100, 0), (104, 0), 4, 100, 100, 0),  # 4 of 104 pixels are 3.8 %
        ((76, 0), (80, 0), 4, 100, 100, 0),  # 4 of 80 are exactly 5 %, not more
        ((75, 0), (79, 0), 4, 100, 100, 100),
    ],
)
def test_errors_of_translations(found, reference, epe, over_1px, over_3px, f1_all):
    result = errors((constant(*found), constant(*reference)))
    assert result.epe == pytest.approx(epe, abs=1e-6)
    assert (result.over_1px, result.over_3px, result.f1_all) == (over_1px, over_3px, f1_all)
    assert result.pixels == H * W


def test_errors_are_means_over_all_pixels_and_pairs():
    half = constant(0, 0)
    half[0, :, : W // 2] = 4  # half the pixels are 4 off: EPE 2, half over 3 px
    result = errors((half, constant(0, 0)), (constant(0, 0), constant(0, 0)))  # the second pair is perfect: both halve
    assert (result.epe, result.over_1px, result.over_3px, result.f1_all) == (1.0, 25.0, 25.0, 25.0)


def test_unknown_pixels_are_left_out():
    reference = constant(0, 0)
    reference[1, :, 0] = np.nan  # a column of 6
    found = constant(0, 0)
    found[:, :, 0] = 1e6
    result = errors((found, reference))
    assert (result.epe, result.pixels) == (0.0, H * (W - 1))
    assert errors((found, np.full_like(found, np.nan))) is None


def by_hand(first_HWC, second_HWC):
    """A flow that says in both directions how much brighter the first pixel became."""
    step = float(second_HWC[0, 0, 0]) - float(first_HWC[0, 0, 0])
    return np.full((2, *first_HWC.shape[:2]), step, np.float32)


def brightening(steps):
    levels = np.cumsum([0, *steps]).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (len(levels), H, W, 3)).copy()


def test_watcher_compares_frames_an_interval_apart():
    frames = brightening([1, 2, 3, 4])  # levels 0, 1, 3, 6, 10
    every = show(FlowScorer("flow", by_hand, 1).watch(sample_of(frames)), frames)
    assert every["flow.magnitude"].details["pairs"] == pytest.approx([2**0.5 * step for step in (1, 2, 3, 4)])
    second = show(FlowScorer("flow", by_hand, 2).watch(sample_of(frames)), frames)
    assert second["flow.magnitude"].details["pairs"] == pytest.approx([2**0.5 * step for step in (3, 7)])
    assert second["flow.magnitude"].value == pytest.approx(2**0.5 * 5)
    assert [second[info.id].value for info in flow_metrics("flow", "")[1:]] == [None] * 4  # no reference
    with pytest.raises(ScoreError, match="flow at interval 5 needs 6 or more"):
        FlowScorer("flow", by_hand, 5).watch(sample_of(frames))


def test_reference_flows_from_a_file(tmp_path):
    frames = brightening([1, 2])
    np.save(tmp_path / "truth.npy", np.stack([constant(1, 1), constant(2, 5)]))  # off by (0, 0) and (0, -3): EPE 1.5
    sample = sample_of(frames, reference=str(tmp_path / "truth.npy"))
    scores = show(FlowScorer("flow", by_hand, 1).watch(sample), frames)
    assert scores["flow.epe"].value == pytest.approx(1.5)
    assert (scores["flow.over_1px"].value, scores["flow.over_3px"].value) == (50.0, 0.0)
    assert scores["flow.epe"].details["pixels"] == 2 * H * W


def test_reference_flows_from_a_video(tmp_path):
    frames = np.repeat(np.repeat(brightening([20, 40, 60]), 8, axis=1), 8, axis=2)
    write_mp4(frames, tmp_path / "same.mp4", fps=8)
    sample = sample_of(frames, reference=str(tmp_path / "same.mp4"))
    scores = show(FlowScorer("flow", by_hand, 1).watch(sample), frames)
    assert scores["flow.epe"].value < 3  # levels of 255: what the video codec changed
    late = np.concatenate([frames[:1], frames])  # the reference stands still first
    write_mp4(late, tmp_path / "late.mp4", fps=8)
    other = show(FlowScorer("flow", by_hand, 1).watch(sample_of(frames, reference=str(tmp_path / "late.mp4"))), frames)
    assert other["flow.epe"].value == pytest.approx(2**0.5 * 20, abs=3)  # steps 20, 40, 60 against 0, 20, 40


def test_references_that_do_not_fit_are_named(tmp_path):
    frames = np.repeat(np.repeat(brightening([20, 40, 60]), 8, axis=1), 8, axis=2)
    write_mp4(frames[:2], tmp_path / "short.mp4", fps=8)
    write_mp4(frames, tmp_path / "fast.mp4", fps=16)
    write_mp4(frames[:, ::2, ::2], tmp_path / "small.mp4", fps=8)
    np.save(tmp_path / "flat.npy", np.zeros((3, 2, 4, 4), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    expected = {
        "short.mp4": "2 frames, the video has 4",
        "fast.mp4": "16 fps, the video has 8",
        "small.mp4": "40x24, the video is 80x48",
        "flat.npy": r"expected floats \(3, 2, 48, 80\)",
        "objects.npy": "not a .npy file of numbers",
        "broken.mp4": "cannot be decoded",
        "none.mp4": "no such file",
    }
    for name, text in expected.items():
        with pytest.raises(ScoreError, match=text):
            FlowScorer("flow", by_hand, 1).watch(sample_of(frames, reference=str(tmp_path / name)))


@pytest.mark.parametrize("model", ["raft_small", "raft_large"])
def test_raft_reads_torchvisions_files(checkpoints, model):
    torch.manual_seed(0)
    network = getattr(optical_flow, model)(weights=None).eval()
    put(network.state_dict(), checkpoints / RAFT_FILES[model][0])
    scorer = flow.SCORER.build(flow.FlowConfig(model=model, updates=2), NetworkCache())
    frames = video(2, 128, 136)
    scores = show(scorer.watch(sample_of(frames)), frames)
    x_BCHW = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        reference = network(x_BCHW[:1], x_BCHW[1:], num_flow_updates=2)[-1][0].numpy()
    assert scores["flow.magnitude"].value == pytest.approx(magnitude(reference), rel=1e-4)
    assert scores["flow.magnitude"].value > 0


def test_raft_pads_other_sizes_and_gives_flow_of_the_frames_size(tmp_path):
    torch.manual_seed(0)
    path = put(optical_flow.raft_small(weights=None).state_dict(), tmp_path / "x.pth")
    tower = raft.load(path, "raft_small", updates=1)
    frames = video(2, 36, 61)
    assert tower.flow(*frames).shape == (2, 36, 61)
    assert raft._sides(36) == (46, 46)
    assert raft._sides(131) == (2, 3)
    with pytest.raises(CheckpointError, match="torchvision's raft_large"):
        raft.load(path, "raft_large", updates=1)


def test_dis_finds_a_translation(tmp_path):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    noise = np.random.default_rng(0).normal(size=(96, 160)).cumsum(0).cumsum(1)
    smooth = ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
    frames = np.stack(
        [np.repeat(np.roll(smooth, 2 * t, axis=1)[:, 32:96, None], 3, axis=2) for t in range(3)]
    )  # 2 pixels to the right per frame
    truth = np.zeros((2, 2, 96, 64), np.float32)
    truth[:, 0] = 2
    np.save(tmp_path / "truth.npy", truth)
    scorer = flow_dis.SCORER.build(flow_dis.DisConfig(), NetworkCache())
    scores = show(scorer.watch(sample_of(frames, reference=str(tmp_path / "truth.npy"))), frames)
    assert scores["flow_dis.magnitude"].value == pytest.approx(2, abs=0.3)
    assert scores["flow_dis.epe"].value < 0.3
    assert scores["flow_dis.over_3px"].value < 2
    assert [need.missing() for need in flow_dis.SCORER.needs] == [""]

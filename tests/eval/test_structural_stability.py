"""The share of pixels whose flow forth and back agree, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from eval.contract import ScoreError
from eval.metrics.structural_stability import NAME, StructureScorer, consistency
from tests.tiny_networks import sample_of, show, video

H, W = 4, 10


def constant(x: float, y: float = 0.0) -> np.ndarray:
    return np.broadcast_to(np.array([x, y], np.float32)[:, None, None], (2, H, W)).copy()


def test_flows_that_return_are_consistent_and_others_not():
    assert consistency(constant(3, 1), constant(-3, -1)) == 1.0
    # |3 + 0|^2 = 9 is not below .01 * 9 + .5
    assert consistency(constant(3), constant(0)) == 0.0
    # .7^2 = .49 is below .01 (4 + 1.69) + .5
    assert consistency(constant(2), constant(-1.3)) == 1.0


def test_pixels_that_leave_the_picture_do_not_count():
    back = constant(-8)
    back[0, :, :9] = 5.0  # of the columns where the two that stay come to lie, 8 and 9, the first does not return
    assert consistency(constant(8), back) == 0.5
    assert consistency(constant(10), constant(-10)) is None


def test_half_of_the_pixels_is_a_half():
    back = constant(0)
    back[0, : H // 2] = 4
    assert consistency(constant(0), back) == 0.5


def test_a_video_is_the_mean_over_its_pairs():
    def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Nothing moves; but out of a black frame everything seems to go right."""
        return np.full((2, *first.shape[:2]), 0.0 if first.any() else 2.0, np.float32)

    frames = np.concatenate((video(3, H, W), np.zeros((1, H, W, 3), np.uint8)))
    watcher = StructureScorer(estimate, 1).watch(sample_of(frames))
    show(watcher, frames)
    score = watcher.scores()[NAME]
    assert score.value == pytest.approx(2 / 3)
    assert score.details["pairs"] == [1.0, 1.0, 0.0]


def test_one_frame_has_no_flow():
    with pytest.raises(ScoreError, match="flow at interval 1 needs 2 or more"):
        StructureScorer(lambda first, second: first, 1).watch(sample_of(video(1, H, W)))

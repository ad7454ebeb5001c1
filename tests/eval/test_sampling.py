"""Which frames each protocol takes: hand-worked cases, and the released functions where they are installed."""

from __future__ import annotations

import pytest
import torch

from eval.video.sampling import best, between, centers, even_count, evenly, every, flow_step, middle, strided


def test_middle_by_hand() -> None:
    assert middle(4, 8) == [0, 2, 4, 6]  # parts 0-1, 2-3, ...: (begin + last) // 2
    assert middle(2, 81) == [19, 60]  # parts 0-39 and 40-80: 39 // 2, 120 // 2
    assert middle(8, 3) == [0, 1, 2, 2, 2, 2, 2, 2]  # too short: the last one again


@pytest.mark.parametrize("length", [1, 5, 8, 16, 49, 81, 150, 957])
@pytest.mark.parametrize("count", [1, 8, 16])
def test_middle_is_vbench(length: int, count: int) -> None:
    utils = pytest.importorskip("vbench.utils")
    assert middle(count, length) == [int(index) for index in utils.get_frame_indices(count, length, sample="middle")]


@pytest.mark.parametrize("length", [7, 16, 81, 150])
@pytest.mark.parametrize(("fps", "sample_fps"), [(16, 2), (16, 0.5), (30, 8), (24, 1)])
def test_centers_are_vbench(length: int, fps: float, sample_fps: float) -> None:
    utils = pytest.importorskip("vbench.utils")
    theirs = utils.get_frame_indices(0, length, sample=f"fps{sample_fps}", input_fps=fps, max_num_frames=4)
    assert centers(length, fps, sample_fps, most=4) == [int(index) for index in theirs]


def test_centers_by_hand() -> None:
    assert centers(16, 16, 2) == [4, 12]  # seconds 0.25 and 0.75
    assert centers(4, 16, 2) == []  # 0.25 s is frame 4, which is not there


def test_evenly_is_torch() -> None:
    wrong = [
        (length, count)
        for length in (*range(1, 200), 957, 961, 1440)
        for count in (1, 2, 4, 8, 10, 12, 22, 30)
        if evenly(count, length) != torch.linspace(0, length - 1, count).round().long().tolist()
    ]
    assert wrong == []


def test_video_align_takes_ten_of_81_frames() -> None:
    assert even_count(81, 16) == 10  # 81 / 16 * 2 = 10.1, to the next even number
    assert evenly(10, 81) == [0, 9, 18, 27, 36, 44, 53, 62, 71, 80]  # steps of 80 / 9 = 8.89
    assert even_count(176, 16) == 22  # Delta Forcing's 11 s
    assert even_count(5, 16) == 4  # 0.6 is below the least number
    assert even_count(100_000, 1) == 768
    with pytest.raises(ValueError, match="1 frames are too few"):
        even_count(1, 16)


def test_every_and_flow_step() -> None:
    assert [flow_step(fps) for fps in (8, 16, 24, 30, 4)] == [1, 2, 3, 4, 1]  # 30 / 8 = 3.75
    assert len(every(flow_step(16), 81)) == 41
    assert every(4, 9) == [0, 4, 8]


def test_strided_is_the_slice() -> None:
    for length in (8, 9, 15, 16, 81, 150):
        assert strided(8, length) == list(range(length))[:: length // 8][:8]
    with pytest.raises(ValueError, match="7 frames are too few, at least 8"):
        strided(8, 7)


def test_between_goes_by_time() -> None:
    assert between(0, 1, 20, 8) == list(range(8))
    assert between(1, 2, 20, 8) == list(range(8, 16))
    assert between(2, 9, 20, 8) == [16, 17, 18, 19]  # the video ends
    assert between(0.3, 0.6, 40, 10) == [3, 4, 5]  # 0.3 * 10 is 3.0000000000000004 - 1e-16 or so in floats
    assert between(3, 4, 20, 8) == []
    parts = [between(10 * k, 10 * k + 10, 957, 16) for k in range(6)]
    assert [index for part in parts for index in part] == list(range(957))


def test_best_is_the_top_share() -> None:
    assert best([0.1, 0.9, 0.5, 0.9, 0.2, 0.3, 0.0], 0.3) == [1, 3]  # int(0.3 * 7) = 2
    assert best([1.0, 1.0, 1.0], 0.3) == [0]  # at least one, the earlier of equal ones
    assert best([3, 1, 2], 1.0) == [0, 1, 2]


@pytest.mark.parametrize("call", [lambda: middle(0, 5), lambda: middle(5, 0), lambda: evenly(0, 3), lambda: every(0, 3), lambda: best([], 0.3)])
def test_nonsense_is_refused(call) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        call()

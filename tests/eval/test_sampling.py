"""Which frames each protocol takes: hand-worked cases, and the released functions where they are installed."""

from __future__ import annotations

import pytest

from eval.video.sampling import between, every, middle, strided


def test_middle_by_hand() -> None:
    assert middle(4, 8) == [0, 2, 4, 6]  # parts 0-1, 2-3, ...: (begin + last) // 2
    assert middle(2, 81) == [19, 60]  # parts 0-39 and 40-80: 39 // 2, 120 // 2
    assert middle(8, 3) == [0, 1, 2, 2, 2, 2, 2, 2]  # too short: the last one again


@pytest.mark.parametrize("length", [1, 5, 8, 16, 49, 81, 150, 957])
@pytest.mark.parametrize("count", [1, 8, 16])
def test_middle_is_vbench(length: int, count: int) -> None:
    utils = pytest.importorskip("vbench.utils")
    assert middle(count, length) == [int(index) for index in utils.get_frame_indices(count, length, sample="middle")]


def test_every_by_hand() -> None:
    assert len(every(2, 81)) == 41
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


@pytest.mark.parametrize("call", [lambda: middle(0, 5), lambda: middle(5, 0), lambda: every(0, 3)])
def test_nonsense_is_refused(call) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        call()

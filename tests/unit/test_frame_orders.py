"""Orders of frames that make temporal negatives, and of which scenes they are negatives."""

from __future__ import annotations

import pytest
import torch

from astro_cli.core.frame_orders import frame_order
from astro_cli.core.rng import stream
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.negatives import is_negative
from astro_cli.shapes.render import random_layout, render

ALL = ("reverse", "shuffle", "freeze")
TAIL = "over a gray plain background"
STILL = parse(f"a large red circle stays still {TAIL}")
MOVES = parse(f"a large red circle moves left fast {TAIL}")
BOUNCES = parse(f"a large red circle bounces vertically fast {TAIL}")


def test_reversal_by_hand():
    assert frame_order("reverse", 5, 7).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("seed", range(8))
def test_a_shuffle_keeps_every_frame_in_its_window_and_no_windows_order(seed):
    order = frame_order("shuffle", 8, seed)
    assert order.sort().values.tolist() == list(range(8))
    for start in (0, 3, 6):
        window = order[start : start + 3]
        assert window.sort().values.tolist() == list(range(start, min(start + 3, 8)))
        assert window.tolist() != list(range(start, min(start + 3, 8)))


def test_a_freeze_stands_still_from_the_first_half_on_or_shows_every_second_frame_twice():
    orders = {tuple(frame_order("freeze", 6, seed).tolist()) for seed in range(64)}
    assert orders == {(0, 0, 2, 2, 4, 4), (0,) * 6, (0, *(1,) * 5), (0, 1, *(2,) * 4)}


@pytest.mark.parametrize("kind", ALL)
def test_an_order_is_a_function_of_its_seed(kind):
    assert torch.equal(frame_order(kind, 9, 3), frame_order(kind, 9, 3))


def test_the_validity_table():
    table = {name: [is_negative(kind, scene, scene) for kind in ALL] for name, scene in (
        ("still", STILL), ("move", MOVES), ("bounce", BOUNCES),
    )}  # fmt: skip
    assert table == {"still": [False] * 3, "move": [True] * 3, "bounce": [False, True, True]}


def test_what_a_caption_leaves_out_cannot_be_wrong():
    """Reversed, "moves fast" still moves fast; a frozen clip of no stated motion answers its caption."""
    assert not is_negative("reverse", MOVES, parse(f"a large red circle moves fast {TAIL}"))
    assert is_negative("freeze", MOVES, parse(f"a large red circle moves fast {TAIL}"))
    unsaid = parse(f"a large red circle {TAIL}")
    assert [is_negative(kind, MOVES, unsaid) for kind in ALL] == [False, True, False]


def test_a_camera_that_pans_makes_a_still_object_move():
    panned = parse(f"a large red circle stays still {TAIL} while the camera pans left")
    assert all(is_negative(kind, panned, panned) for kind in ALL)


def test_the_table_says_what_frames_show():
    """A reversed still clip is the same clip; a reversed bounce passes through the same places."""
    for scene, same in ((STILL, True), (MOVES, False)):
        clip = render([scene], random_layout([scene], [stream(0)]), 9)[0]
        assert torch.allclose(clip[frame_order("reverse", 9, 0)], clip, atol=1e-6) == same
    clip = render([BOUNCES], random_layout([BOUNCES], [stream(0)]), 17)[0]  # two periods of 8 frames and one frame
    turned = clip[frame_order("reverse", 17, 0)]
    nearest = (turned[:, None] - clip[None, :]).abs().mean((2, 3, 4)).min(1).values
    assert nearest.max() < 1e-6

"""Clips of one world through cameras of unlike quality: focus, colour and flicker."""

from dataclasses import replace

import pytest
import torch

from astro_cli.core.rng import stream
from astro_cli.rewards.embedded import embedded_reward
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import FLICKER, FREE, GRID, PALEST, RARELY, random_layout, render

PROMPTS = [
    "a large red circle moves left slowly over a gray plain background",
    "a small cyan cross stays still over a white striped background",
]
SCENES = [parse(prompt) for prompt in PROMPTS]


def layout(world=GRID):
    return random_layout(SCENES, [stream("looks", row) for row in range(len(SCENES))], world=world)


def looking(*look):
    return replace(layout(), look_B3=torch.tensor([look] * len(SCENES)))


PLAIN = replace(layout(), look_B3=None)


def test_the_best_look_is_the_render_itself():
    torch.testing.assert_close(render(SCENES, looking(0.0, 0.0, 0.0), 5), render(SCENES, PLAIN, 5))


def test_a_soft_clip_keeps_every_frames_mean_and_loses_its_edges():
    sharp, soft = render(SCENES, PLAIN, 5), render(SCENES, looking(1.0, 0.0, 0.0), 5)
    torch.testing.assert_close(soft.mean((-2, -1)), sharp.mean((-2, -1)), atol=1e-5, rtol=0)
    edges = [frames.diff(dim=-1).abs().amax((1, 2, 3, 4)) for frames in (soft, sharp)]
    assert (edges[0] < 0.75 * edges[1]).all()


def test_a_pale_clip_keeps_its_gray_and_a_share_of_its_colour():
    vivid, pale = render(SCENES, PLAIN, 3), render(SCENES, looking(0.0, 1.0, 0.0), 3)
    gray = vivid.mean(2, keepdim=True)
    torch.testing.assert_close(pale - gray, (1 - PALEST) * (vivid - gray), atol=1e-5, rtol=0)


def test_every_other_frame_is_darker_in_a_clip_that_flickers():
    steady, flickering = render(SCENES, PLAIN, 6), render(SCENES, looking(0.0, 0.0, 0.5), 6)
    sign = torch.tensor([1.0, -1.0] * 3)[:, None, None, None]
    torch.testing.assert_close(flickering - steady, (sign * FLICKER / 2).expand_as(steady), atol=1e-5, rtol=0)


def test_a_video_rendered_in_pieces_has_one_look():
    look = looking(0.7, 0.4, 0.9)
    whole = render(SCENES, look, 7)
    pieces = torch.cat((render(SCENES, look, 3), render(SCENES, look, 4, first_frame=3)), 1)
    torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)


def test_looks_are_drawn_last_and_differ():
    """Where objects are does not depend on whether clips have looks."""
    plain = layout(replace(GRID, looks=False))
    assert plain.look_B3 is None
    assert layout(FREE).look_B3 is None
    assert torch.equal(plain.start_BK2, layout().start_BK2)
    assert torch.equal(plain.texture_B2, layout().texture_B2)
    assert layout().look_B3 is not None


def test_looks_are_of_two_kinds_each_and_sharp_clips_flicker_more_often():
    drawn = random_layout(SCENES[:1] * 512, [stream("drawn", row) for row in range(512)], world=GRID).look_B3
    assert drawn is not None
    assert drawn.unique().tolist() == [0.0, 1.0]
    soft, pale, flicker = drawn.bool().unbind(1)
    shares = [soft.float().mean(), pale.float().mean(), flicker[soft].float().mean(), flicker[~soft].float().mean()]
    for share, wanted in zip(shares, (0.5, 0.5, RARELY, 1 - RARELY), strict=True):
        assert abs(share - wanted) < 0.09  # three deviations of the smaller samples


@pytest.mark.parametrize(("key", "look"), [("vq", (1.0, 0.0, 0.0)), ("vq", (0.0, 1.0, 0.0)), ("mq", (0.0, 0.0, 1.0))])
def test_the_rewards_see_the_looks_they_are_about(key, look):
    """Quality falls with focus and colour, quality of motion with flicker, by more than clips of a prompt differ."""
    reward = embedded_reward(key, GRID.pace)
    best, worst = (reward.score(render(SCENES, which, 33), PROMPTS) for which in (PLAIN, looking(*look)))
    assert (best[0] - worst[0]).item() > 0.03

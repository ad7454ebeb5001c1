"""Prompt grammar and renderer: what is parsed is what was said, wrong words are named, layouts keep objects inside."""

from __future__ import annotations

import pytest
import torch

from astro_cli.config.errors import PromptError
from astro_cli.core.rng import stream
from astro_cli.shapes import text
from astro_cli.shapes.grammar import Motion, ObjectSpec, Scene, caption, complete_scene, parse, random_scene
from astro_cli.shapes.render import SEAM_SHARE, centers, random_layout, render

EXAMPLE = "a small red circle moves right fast over a gray striped background"


def test_the_example_by_hand():
    expected = Scene((ObjectSpec("small", "red", "circle", Motion("move", "right", "fast")),), "gray", "striped")
    assert parse(EXAMPLE) == expected
    assert caption(expected) == EXAMPLE


def test_two_objects_and_a_panning_camera():
    scene = parse(
        "a red circle stays still and a large thing bounces vertically over a white background while the "
        "camera pans left"
    )
    assert [o.shape for o in scene.objects] == ["circle", None]
    assert (scene.pan, scene.texture) == ("left", None)


def test_every_caption_parses_back():
    for index in range(300):
        scene = random_scene(stream("grammar-test", index), drop=0.3)
        assert parse(caption(scene)) == scene
        assert complete_scene(scene, stream("fill", index)).complete


@pytest.mark.parametrize(
    ("prompt", "word", "near"), [("a small red cirle", "cirle", "circle"), ("a grean square", "grean", "green")]
)
def test_an_unknown_word_is_named_with_the_nearest(prompt, word, near):
    with pytest.raises(PromptError) as error:
        text.tokenize(prompt)
    assert word in str(error.value)
    assert near in error.value.hint


def test_left_out_attributes_follow_the_skewed_prior():
    scenes = [complete_scene(parse("a thing over a background"), stream("prior", i)) for i in range(400)]
    red = sum(s.objects[0].color == "red" for s in scenes) / 400
    assert 0.5 < red < 0.7  # .6, against 1/6 where colours are stated
    stated = [random_scene(stream("uniform", i)) for i in range(600)]
    assert 0.1 < sum(s.objects[0].color == "red" for s in stated) / 600 < 0.24


def test_a_video_can_be_rendered_piece_by_piece():
    scene = parse(EXAMPLE)
    layout = random_layout([scene], [stream("piece")])
    whole = render([scene], layout, 6)
    parts = torch.cat([render([scene], layout, 3), render([scene], layout, 3, first_frame=3)], 1)
    torch.testing.assert_close(whole, parts)


def test_a_clip_does_not_depend_on_its_batch():
    scenes = [complete_scene(random_scene(stream("b", i)), stream("c", i)) for i in range(5)]
    together = render(scenes, random_layout(scenes, [stream("l", i) for i in range(5)]), 3)
    alone = render(scenes[3:4], random_layout(scenes[3:4], [stream("l", 3)]), 3)
    torch.testing.assert_close(together[3:4], alone)


def test_most_objects_stay_inside_for_a_clip():
    scene = parse("a small red circle moves right slowly over a gray plain background")
    layout = random_layout([scene] * 400, [stream("inside", i) for i in range(400)])
    x = centers([scene] * 400, layout, torch.arange(9.0))[:, 0, :, 0]
    inside = ((x > 4) & (x < 28)).all(1).float().mean().item()
    assert abs(inside - (1 - SEAM_SHARE)) < 0.2


def test_motion_by_hand():
    scene = parse("a small red circle moves up slowly over a gray plain background")
    layout = random_layout([scene], [stream("hand")])
    path = centers([scene], layout, torch.tensor([0.0, 4.0]))[0, 0]
    assert torch.allclose(path[1] - path[0], torch.tensor([0.0, -6.0 * layout.speed_BK.item()]), atol=1e-5)


def test_bounce_returns_after_its_period():
    scene = parse("a small red circle bounces horizontally fast over a gray plain background")
    layout = random_layout([scene], [stream("bounce")])
    path = centers([scene], layout, torch.arange(9.0))[0, 0]
    assert torch.allclose(path[8], path[0], atol=1e-4)
    assert (path[:, 0].max() - path[:, 0].min()) > 5  # 3 px a frame for up to 4 frames, there and back
    assert (path[:, 1] - path[0, 1]).abs().max() == 0


def test_the_empty_prompt_is_all_zeros_and_word_order_matters():
    assert text.encode([""]).abs().max() == 0
    a, b = text.encode(["red circle", "circle red"])
    assert not torch.equal(a, b)


def test_the_packaged_codec_reconstructs_validation_clips():
    from astro_cli.models.backbone import load_backbone

    backbone = load_backbone("shapes")
    scenes = [complete_scene(random_scene(stream("psnr", i)), stream("psnr-fill", i)) for i in range(64)]
    frames = render(
        scenes, random_layout(scenes, [stream("psnr-layout", i) for i in range(64)], world=backbone.world), 9
    )
    latents = backbone.encode(frames)
    psnr = -10 * (backbone.decode(latents) - frames).pow(2).mean((1, 2, 3, 4)).log10()
    assert psnr.mean() >= 30
    assert 0.8 < latents.std() < 1.2

"""The judges of `astro doctor world` on rendered videos, and clips that begin in the middle of a video."""

import pytest
import torch

from astro_cli.config.errors import RecipeError
from astro_cli.core.rng import stream
from astro_cli.models.shapes_backbone import ShapesBackbone
from astro_cli.objectives.base import Batch
from astro_cli.recipe import load_recipe
from astro_cli.rewards.embedded import embedded_reward
from astro_cli.shapes.grammar import Motion, parse
from astro_cli.shapes.oracle import agreement, measure
from astro_cli.shapes.render import FREE, GRID, World, centers, random_layout, render
from astro_cli.shapes.video_codec import VideoCodec
from astro_cli.training.rendered_clips import ClipSource
from astro_cli.training.sources import FrameSource, draw_scene, render_scenes
from eval.world.diagnosis import FLIPS, border_steps, follows, moving_scenes, saturation_steps
from eval.world.shapes import prompt_set


@pytest.fixture(scope="module", params=[FREE, GRID], ids=["free", "grid"])
def world(request) -> World:
    return request.param


@pytest.fixture(scope="module")
def scenes():
    return [parse(prompt) for prompt in prompt_set(48)]


@pytest.fixture(scope="module")
def videos(scenes, world):
    layout = random_layout(scenes, [stream("test-world", index) for index in range(48)], world=world)
    return render(scenes, layout, 33), [scene.objects[0].motion for scene in scenes]


def test_rendered_videos_follow_their_prompts_and_no_other(videos):
    frames, motions = videos
    steps = saturation_steps(frames)
    assert follows(steps, motions).all()
    turned = [
        Motion("still") if motion.kind == "bounce" else Motion("bounce", "vertically", "fast") for motion in motions
    ]
    assert not follows(steps, turned).any()
    assert {motion.kind for motion in motions} == {"still", "move", "bounce"}


def test_a_video_played_backwards_moves_the_other_way(videos):
    frames, motions = videos
    right = follows(saturation_steps(frames.flip(1)), motions)
    assert right.tolist() == [motion.kind != "move" for motion in motions]


def test_oracle_and_text_reward_know_the_pace_of_the_world(videos, scenes, world):
    frames, _ = videos
    shown = agreement(measure(frames, world.pace), scenes)
    for name in ("motion", "speed"):
        assert shown[name].nan_to_num(1.0).eq(1).all()
    prompts = prompt_set(48)
    aware, unaware = (embedded_reward("ta", pace) for pace in (world.pace, 1.0))
    gain = (aware.score(frames, prompts) - unaware.score(frames, prompts)).mean()
    assert gain > 0.01 if world is GRID else gain == 0


def test_on_the_grid_objects_are_on_a_token_whenever_a_latent_ends(scenes):
    layout = random_layout(scenes, [stream("test-grid", index) for index in range(48)], world=GRID)
    at_ends = centers(scenes, layout, torch.arange(0, 33, 4.0))
    torch.testing.assert_close(at_ends, (at_ends / GRID.grid).round() * GRID.grid, rtol=0, atol=1e-4)
    steps = at_ends[:, 0].diff(dim=1).abs().sum(-1)
    pace = {None: 0.0, "slowly": 8.0, "fast": 16.0}  # world units in four frames
    wanted = torch.tensor([pace[scene.objects[0].motion.speed] for scene in scenes])
    torch.testing.assert_close(steps, wanted[:, None].expand_as(steps), rtol=0, atol=1e-4)


def test_a_jump_at_a_border_is_found():
    step = torch.zeros(1, 6, 2)
    step[..., 0] = torch.tensor(
        [2.0, -2.0, 2.9, 2.0, 3.1, 2.0]
    )  # borders at frames 3 and 5; the mean step elsewhere is 2
    assert border_steps(step, [3, 5]).tolist() == [[True, False]]


def test_a_flip_changes_one_word():
    for scene in moving_scenes(8):
        motion = scene.objects[0].motion
        assert motion is not None
        assert motion.kind == "move"
        for name, flip in FLIPS.items():
            other = flip(scene)
            assert other != scene
            assert flip(flip(scene)) == scene or name in ("axis", "color", "shape")


def test_a_led_clip_is_the_later_part_of_the_encoded_video():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = ShapesBackbone(VideoCodec(width=8).requires_grad_(False))
    led = ClipSource(0, backbone, 2, 3, 0.0, lambda *_: None, lead=1)
    whole = ClipSource(0, backbone, 3, 3, 0.0, lambda *_: None)
    assert led.latents.shape == (3, 2, 16, 8, 8)
    torch.testing.assert_close(led.latents, whole.latents[:, 1:])


def test_a_clip_with_a_gap_shows_the_first_block_and_a_later_stretch_of_the_video():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = ShapesBackbone(VideoCodec(width=8).requires_grad_(False))
    gapped = ClipSource(0, backbone, 3, 12, 0.0, lambda *_: None, lead=1, gap=2, block=1)
    whole = ClipSource(0, backbone, 6, 12, 0.0, lambda *_: None).latents
    assert {tuple(numbers) for numbers in gapped.numbers_PF.tolist()} == {(0, 1, 2), (0, 2, 3), (0, 3, 4)}
    for clip, numbers, video in zip(gapped.latents, gapped.numbers_PF, whole, strict=True):
        torch.testing.assert_close(clip, video[1 + numbers])
    learned = gapped.batch("gap", 0, "student", 32).learned_BF
    assert learned is not None
    assert {tuple(row) for row in learned.tolist()} == {(True, True, True), (True, False, True)}
    assert ClipSource(0, backbone, 2, 3, 0.0, lambda *_: None).batch("x", 0, "student", 2).learned_BF is None


def test_the_error_of_a_clip_is_the_mean_over_the_frames_that_count():
    error_BFC = torch.tensor([[[1.0, 3.0], [5.0, 5.0]], [[2.0, 2.0], [8.0, 0.0]]])
    assert Batch([0, 1], ["", ""]).mean_error(error_BFC).item() == pytest.approx((2 + 5 + 2 + 4) / 4)
    counted = Batch([0, 1], ["", ""], learned_BF=torch.tensor([[True, True], [False, True]]))
    assert counted.mean_error(error_BFC).item() == pytest.approx(((2 + 5) / 2 + 4) / 2)
    alone = [counted.rows(row, row + 1).mean_error(error_BFC[row : row + 1]) for row in (0, 1)]
    assert torch.stack(alone).mean() == counted.mean_error(error_BFC)  # however samples are grouped


@pytest.mark.parametrize(
    ("name", "stage", "gap", "what"),
    [
        ("causal_forcing_shapes", "ar_diffusion", "4", "found 4, expected a multiple of video.block (3)"),
        ("causal_forcing_shapes", "consistency", "-3", "expected greater than or equal to 0"),
        ("teacher_shapes", "clips", "3", "found 3, expected 0: representation_alignment learns every frame of a clip"),
        ("aapt_shapes", "consistency", "3", "expected 0: next_frame_consistency learns every frame of a clip"),
    ],
)
def test_gaps_that_no_loss_leaves_out_are_refused(name, stage, gap, what):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, [f"stages.{stage}.data.gap={gap}"])
    assert f"stages.{stage}.data.gap" in str(caught.value)
    assert what in str(caught.value)


def test_frame_source_renders_clips_as_long_as_asked_for():
    batch = FrameSource(7, 5).batch("codec", 2, "codec", 2)
    scenes = [draw_scene(seed, 0.0)[0] for seed in batch.seeds]
    assert torch.equal(batch.frames_BTCHW, render_scenes(scenes, batch.seeds, 5))
    assert torch.equal(FrameSource(7).batch("codec", 2, "codec", 2).frames_BTCHW, batch.frames_BTCHW[:, :1])

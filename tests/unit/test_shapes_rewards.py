"""The embedded world's training rewards: what each must see, must not see, and how each can be gamed."""

from __future__ import annotations

import dataclasses
import math
import time

import pytest
import torch

from astro_cli.core.rng import stream
from astro_cli.rewards.shapes import REWARDS, MotionQuality, TextAlignment, VisualQuality, top_fraction_mean
from astro_cli.shapes.grammar import Motion, ObjectSpec, Scene, caption, complete_scene, parse, random_scene
from astro_cli.shapes.render import Layout, random_layout, render
from astro_cli.shapes.segment import LUMA, lowpass

NUM_CLIPS, NUM_FRAMES = 256, 9


def _world() -> tuple[list[Scene], Layout]:
    rng = stream(0, "reward-scenes")
    scenes = [complete_scene(random_scene(rng), rng) for _ in range(NUM_CLIPS)]
    return scenes, random_layout(scenes, [stream(0, "reward-layout", clip) for clip in range(NUM_CLIPS)])


def _with_motion(scene: Scene, motion: Motion) -> Scene:
    return dataclasses.replace(scene, objects=(dataclasses.replace(scene.objects[0], motion=motion),))


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return render(*_world(), NUM_FRAMES)


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [caption(scene) for scene in _world()[0]]


@pytest.fixture(scope="module")
def moving_B() -> torch.Tensor:
    return torch.tensor([scene.objects[0].motion != Motion("still") for scene in _world()[0]])


def _shuffled(clips: torch.Tensor) -> torch.Tensor:
    rng = stream(0, "reward-shuffle")
    order_BT = torch.stack([torch.randperm(NUM_FRAMES, generator=rng) for _ in clips])
    return clips.gather(1, order_BT[:, :, None, None, None].expand_as(clips))


def _noisy(clips: torch.Tensor) -> torch.Tensor:
    return (clips + 0.08 * torch.randn(clips.shape, generator=stream(0, "reward-noise"))).clamp(0, 1)


def test_top_fraction_mean_by_hand() -> None:
    scores = torch.tensor([[1.0, 5.0, 3.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0, 10.0]])
    # 5 frames: ceil(0.3 * 5) = 2 -> (5 + 4)/2 = 4.5 and (10 + 0)/2 = 5
    torch.testing.assert_close(top_fraction_mean(scores, 0.3), torch.tensor([4.5, 5.0]))
    torch.testing.assert_close(top_fraction_mean(scores, 1.0), torch.tensor([3.0, 2.0]))  # 15/5, 10/5
    torch.testing.assert_close(top_fraction_mean(scores, 0.01), torch.tensor([5.0, 10.0]))  # never fewer than one
    ten = torch.arange(10.0)[None]
    assert top_fraction_mean(ten, 0.3).item() == 8.0  # 0.3 * 10 is exactly 3 frames: (9 + 8 + 7)/3


def test_rewards_are_listed_by_key() -> None:
    assert list(REWARDS.items()) == [("vq", VisualQuality), ("mq", MotionQuality), ("ta", TextAlignment)]
    assert all(reward.key == key for key, reward in REWARDS.items())


@pytest.mark.parametrize("key", REWARDS)
def test_range_type_and_independence_of_the_batch(clips: torch.Tensor, prompts: list[str], key: str) -> None:
    reward = REWARDS[key]()
    scores = reward.score(clips, prompts)
    assert scores.shape == (NUM_CLIPS,)
    assert scores.dtype == torch.float32
    assert scores.amin() >= 0
    assert scores.amax() <= 1
    assert scores.unique().numel() > NUM_CLIPS // 2  # continuous
    torch.testing.assert_close(reward.score(clips[3:4], prompts[3:4]), scores[3:4], atol=1e-5, rtol=1e-4)
    blank = reward.score(torch.full((1, reward.num_frames_min, 3, 32, 32), 0.5), prompts[:1])
    assert torch.isfinite(blank).all()
    assert blank < scores.mean()


@pytest.mark.parametrize("key", REWARDS)
def test_cheap(clips: torch.Tensor, prompts: list[str], key: str) -> None:
    reward, best = REWARDS[key](), math.inf
    for _ in range(3):
        start = time.process_time()
        reward.score(clips[:64], prompts[:64])
        best = min(best, time.process_time() - start)
    assert best < 0.3


def test_vq_sees_blur_and_noise_but_neither_prompt_nor_order(clips: torch.Tensor, prompts: list[str]) -> None:
    vq = VisualQuality()
    base = vq.score(clips, prompts)
    assert (base - vq.score(lowpass(clips, 1.2), prompts)).mean() > 0.15
    assert (base - vq.score(_noisy(clips), prompts)).mean() > 0.05
    torch.testing.assert_close(vq.score(_shuffled(clips), prompts[::-1]), base)


def test_vq_uses_the_best_frames_only(clips: torch.Tensor, prompts: list[str]) -> None:
    spoiled = clips.clone()
    spoiled[:, :6] = lowpass(clips[:, :6], 2.0)  # ceil(0.3 * 9) = 3 frames are left untouched
    want = top_fraction_mean(
        torch.stack([VisualQuality().score(clips[:, t : t + 1], prompts) for t in (6, 7, 8)], 1), 1.0
    )
    torch.testing.assert_close(VisualQuality().score(spoiled, prompts), want)


def test_vq_is_hackable_by_standing_still(clips: torch.Tensor, prompts: list[str], moving_B: torch.Tensor) -> None:
    scenes, layout = _world()
    static = render([_with_motion(scene, Motion("still")) for scene in scenes], layout, NUM_FRAMES)
    gain = VisualQuality().score(static, prompts) - VisualQuality().score(clips, prompts)
    fast_B = torch.tensor([(scene.objects[0].motion or Motion("still")).speed == "fast" for scene in scenes])
    assert gain[moving_B].mean() > 0
    assert gain[fast_B].mean() > 0.02
    assert (gain[fast_B] > 0).float().mean() > 0.9
    mq = MotionQuality()
    assert mq.score(static, prompts).amax() < 0.05 < 0.4 < mq.score(clips, prompts)[moving_B].mean()


def test_mq_falls_with_freezing_shuffling_and_flicker(
    clips: torch.Tensor, prompts: list[str], moving_B: torch.Tensor
) -> None:
    mq = MotionQuality()
    base = mq.score(clips, prompts)[moving_B].mean()
    flicker = clips * (1 + 0.15 * torch.randn(NUM_CLIPS, NUM_FRAMES, 1, 1, 1, generator=stream(0, "reward-flicker")))
    worse = {"freeze": clips[:, :1].expand_as(clips), "shuffle": _shuffled(clips), "flicker": flicker.clamp(0, 1)}
    drop = {name: (base - mq.score(frames, prompts)[moving_B].mean()).item() for name, frames in worse.items()}
    for name, least in {"freeze": 0.4, "shuffle": 0.3, "flicker": 0.15}.items():
        assert drop[name] > least, name


def test_mq_does_not_see_hue_or_prompt(clips: torch.Tensor, prompts: list[str]) -> None:
    mq = MotionQuality()
    shift_C = torch.tensor([0.1, -0.1 * LUMA[0] / LUMA[1], 0.0])  # 0.299 * 0.1 - 0.587 * 0.0509 = 0: luma stays
    tinted = clips.clone()
    tinted += shift_C[None, None, :, None, None] * (clips.amax(2, keepdim=True) - clips.amin(2, keepdim=True))
    assert (tinted - clips).abs().amax() > 0.05
    torch.testing.assert_close(mq.score(tinted, prompts[::-1]), mq.score(clips, prompts), atol=1e-4, rtol=1e-3)


def test_ta_tells_prompts_apart(clips: torch.Tensor, prompts: list[str]) -> None:
    ta = TextAlignment()
    right, wrong = ta.score(clips, prompts), ta.score(clips, prompts[1:] + prompts[:1])
    assert right.mean() > 0.85
    assert right.mean() - wrong.mean() > 0.3
    assert (right > wrong).float().mean() > 0.97


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("red", "blue"),
        ("small", "large"),
        ("circle", "cross"),
        ("circle", "square"),
        ("right", "left"),
        ("right", "up"),
        ("fast", "slowly"),
        ("gray", "white"),
        ("striped", "plain"),
        ("striped", "checkered"),
        ("moves right", "bounces horizontally"),
    ],
)
def test_ta_answers_to_every_attribute(true: str, false: str) -> None:
    text = "a small red circle moves right fast over a gray striped background"
    layout = random_layout([parse(text)] * 8, [stream(0, "ta", clip) for clip in range(8)])
    clips = render([parse(text)] * 8, layout, NUM_FRAMES)
    ta = TextAlignment()
    # one of seven stated attributes is wrong: with soft scores the mean falls by most of 1/7 = 0.14, by half of it for
    # a right angle
    assert (ta.score(clips, [text] * 8) > ta.score(clips, [text.replace(true, false)] * 8) + 0.05).all()


def test_ta_counts_only_what_is_stated() -> None:
    ta = TextAlignment()
    scene = complete_scene(Scene((ObjectSpec(color="blue"),)), stream(0, "stated"))
    blue = render([scene], random_layout([scene], [stream(0, "stated", 1)]), NUM_FRAMES)
    assert ta.score(blue, ["a blue thing"]).item() > 0.95
    assert ta.score(blue, ["a yellow thing"]).item() < 0.05
    assert ta.score(blue, ["a thing"]).item() == 0.0  # nothing stated, nothing to agree with: a constant

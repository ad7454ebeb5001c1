"""Wan's training rewards from tiny released files: what each sees, one network for two of them, and what is refused
before anything runs.
"""

from __future__ import annotations

from typing import Any

import pytest
import reward_folders as folders
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import RecipeError
from astro_cli.recipe import load_recipe
from astro_cli.rewards import scorer_places, wan
from astro_cli.rewards import videoalign as videoalign_module
from astro_cli.rewards.base import KEYS
from astro_cli.rewards.hpsv3 import best_mean
from astro_cli.rewards.qwen2_vl_inputs import to_uint8
from astro_cli.rewards.qwen2_vl_reward import RewardTower
from astro_cli.rollout.spec import StreamSpec
from astro_cli.training.experience import ExperienceSource

CPU, FPS = torch.device("cpu"), 16.0
PROMPTS = ["a red circle", "a gray cat"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    folders.write_hpsv3(root)
    folders.write_videoalign(root)
    return root


@pytest.fixture
def rewards(checkpoints, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(checkpoints))
    return {reward.key: reward for reward in wan.load_rewards(KEYS, FPS, CPU)}


def clips(frames: int = 5) -> torch.Tensor:
    return torch.rand(2, frames, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_motion_and_alignment_share_one_network_and_every_reward_scores_each_clip_once(rewards, monkeypatch):
    assert rewards["mq"].scorer is rewards["ta"].scorer
    seen = []
    original = RewardTower.see

    def counted(self, kind, given):
        seen.append((kind, len(given)))
        return original(self, kind, given)

    monkeypatch.setattr(RewardTower, "see", counted)
    scores = {key: rewards[key].score(clips(), PROMPTS) for key in KEYS}
    assert all(
        score.shape == (2,) and score.dtype == torch.float32 and bool(score.isfinite().all())
        for score in scores.values()
    )
    assert sum(count for kind, count in seen if kind == "image") == 2 * 5  # every frame of both clips
    assert sum(count for kind, count in seen if kind == "video") == 2 + 2  # luma for mq, colour for ta


def test_vq_is_the_mean_of_the_best_frames_of_each_clip(rewards):
    found = rewards["vq"].score(clips(7), PROMPTS)
    for row in range(2):
        frames = rewards["vq"].scorer.score(to_uint8(clips(7)[row]), PROMPTS[row])
        assert found[row].item() == pytest.approx(frames.topk(2).values.mean().item(), abs=1e-4)  # int(.3 x 7) = 2
        assert found[row].item() == pytest.approx(best_mean(frames).item(), abs=1e-4)


def test_mq_is_normalised_blind_to_the_prompt_and_to_hue_and_ta_is_not(rewards):
    frames = clips()
    align = rewards["mq"].scorer
    chosen = align.frames(5, FPS)
    assert chosen == [0, 1, 3, 4]  # 5 / 16 x 2 = 0.6 -> 4 frames at least
    raw = align.raw([to_uint8(clip[chosen]) for clip in frames], PROMPTS, gray=True)
    wanted = (raw[:, videoalign_module.MQ] - folders.NORM["MQ_mean"]) / folders.NORM["MQ_std"]
    assert torch.allclose(rewards["mq"].score(frames, PROMPTS), wanted, atol=1e-5)
    assert torch.allclose(rewards["mq"].score(frames, PROMPTS[::-1]), wanted, atol=1e-5)
    luma = (frames * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(2, keepdim=True).expand_as(frames)
    assert (rewards["ta"].score(frames, PROMPTS) - rewards["ta"].score(luma, PROMPTS)).abs().min() > 1e-5
    assert (rewards["ta"].score(frames, PROMPTS) - rewards["ta"].score(frames, PROMPTS[::-1])).abs().min() > 1e-5


def test_a_reward_does_not_depend_on_the_batch(rewards):
    for key in ("mq", "ta"):
        whole = rewards[key].score(clips(), PROMPTS)
        alone = torch.cat([rewards[key].score(clips()[row : row + 1], PROMPTS[row : row + 1]) for row in range(2)])
        assert torch.allclose(whole, alone, atol=1e-5)


def missing_scorers(recipe: str) -> list[str]:
    experience = load_recipe(recipe).stages["nft"].experience
    assert experience is not None
    return [need.what for need in scorer_places.needs(experience.scored) if need.here is None]


def test_scorers_of_rl_on_wan_are_missing_until_their_weights_are_here(tmp_path, checkpoints, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    assert missing_scorers("astrolabe_causal") == ["reward vq: HPSv3", "reward mq, ta: VideoAlign"]
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(checkpoints))
    assert missing_scorers("astrolabe_causal") == []


def test_only_the_scorers_a_recipe_uses_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    assert [need.what for need in scorer_places.needs(["vq"])] == ["reward vq: HPSv3"]
    assert [need.what for need in scorer_places.needs(["mq"])] == ["reward mq, ta: VideoAlign"]
    assert scorer_places.needs([]) == []


class _Stub:
    """A backbone and setting of which only names and sizes are asked."""

    name, fps, device, frames, block, steps, latent_shape, cache = (
        "wan",
        FPS,
        CPU,
        3,
        3,
        (1000.0,),
        (16, 8, 8),
        CacheSpec(),
    )

    def stream_spec(self) -> StreamSpec:
        return StreamSpec(torch.tensor([1000.0]), 3, self.latent_shape, self.cache)

    def num_frames(self, num_latents: int, history: int = 0) -> int:
        return 4 * num_latents - (0 if history else 3)


def test_an_experience_on_wan_takes_wans_scorers(checkpoints, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(checkpoints))
    spec = load_recipe("astrolabe_causal").stages["nft"].experience
    assert spec is not None
    unused: Any = None
    stub: Any = _Stub()
    source = ExperienceSource(spec, unused, stub, stub, unused, "nft")
    assert [type(reward) for reward in source.roller.rewards] == [wan.FrameQuality, wan.ClipQuality, wan.ClipQuality]
    one = spec.model_copy(update={"rewards": {"vq": 0.0, "mq": 1.0}, "primary": None})
    assert [reward.key for reward in ExperienceSource(one, unused, stub, stub, unused, "nft").roller.rewards] == ["mq"]
    single = spec.model_copy(update={"frames": 1, "clip": 0})
    with pytest.raises(RecipeError, match="mq: scores clips of 2 frames or more, the recipe's have 1"):
        ExperienceSource(single, unused, stub, stub, unused, "nft")

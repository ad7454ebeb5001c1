"""Rewards of clips from the middle of a video see the frames of the whole video; its history is decoded once."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from wan_folder import tiny_vae

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import RecipeError
from astro_cli.models.vae import WanVAE
from astro_cli.models.wan_backbone import WanBackbone
from astro_cli.spec import ExperienceSpec
from astro_cli.training import clips
from astro_cli.training.clips import Roller, fewest_frames, window_starts
from astro_cli.training.experience import ExperienceSource

CPU, BLOCK, CLIP = torch.device("cpu"), 1, 2
SAME = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def wan() -> WanBackbone:
    text: Any = None
    return WanBackbone(text, WanVAE(tiny_vae()))


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class _Seen:
    """A reward that keeps the frames it gets."""

    key, num_frames_min = "vq", 1

    def __init__(self) -> None:
        self.frames: list[torch.Tensor] = []

    def score(self, frames_BTCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        self.frames.append(frames_BTCHW)
        return torch.zeros(len(prompts))


def _setting(policy: object) -> Any:
    return SimpleNamespace(
        device=CPU,
        frames=6,
        block=BLOCK,
        steps=(1000.0,),
        latent_shape=(16, 2, 3),
        cache=CacheSpec(),
        stream_spec=lambda: None,  # nothing here streams
        section=lambda name: nullcontext(),
        autocast=nullcontext,
        roles=SimpleNamespace(use=lambda role: nullcontext(policy)),
    )


class _Policy:
    """Text states that are no more than the texts."""

    device = CPU

    class _Text:
        def __init__(self, texts: torch.Tensor) -> None:
            self.texts, self.batch = texts, len(texts)

        def select(self, rows: torch.Tensor) -> _Policy._Text:
            return _Policy._Text(self.texts[rows])

    def encode_text(self, texts: torch.Tensor) -> _Policy._Text:
        return _Policy._Text(texts)


def spec(**changes: Any) -> ExperienceSpec:
    return ExperienceSpec(prompts=3, group=2, rewards={"vq": 1.0}, frames=6, clip=CLIP, **changes)


@pytest.mark.parametrize("parallel", [None, 4, 1], ids=["all at once", "two histories", "a group in parts"])
@pytest.mark.parametrize("start", [0, 3])
def test_a_roller_scores_what_the_whole_video_shows_and_decodes_a_history_once(wan, monkeypatch, parallel, start):
    """Three prompts of two candidates: rewards and motion are those of the whole videos, cut."""
    history, clip = drawn(5, 3, start, 16, 2, 3), drawn(6, 6, CLIP, 16, 2, 3)
    monkeypatch.setattr(clips, "sample_history", lambda policy, text, *rest: (history[text.texts[:, 0]], []))
    monkeypatch.setattr(clips, "decode_candidates", lambda policy, text, seeds, *rest: clip[torch.tensor(seeds)])
    decoded, decode = [], WanVAE._decode

    def counted(vae, latents, features):
        decoded.append(tuple(latents.shape[:2]))
        return decode(vae, latents, features)

    monkeypatch.setattr(WanVAE, "_decode", counted)
    seen, texts = _Seen(), torch.arange(3).repeat_interleave(2)[:, None]
    found = Roller(spec(parallel=parallel), _setting(_Policy()), wan, [seen]).candidates(
        ["a"] * 6, list(range(6)), texts, [1, 2, 3], start
    )
    assert sum(videos * latents for videos, latents in decoded) == 3 * start + 6 * CLIP
    assert {latents for _, latents in decoded} == ({1, CLIP} if start else {CLIP})  # a history's frames are not kept
    whole = wan.decode(torch.cat((history.repeat_interleave(2, 0), clip), 1))
    expected = whole[:, 4 * start - 3 if start else 0 :]
    torch.testing.assert_close(torch.cat(seen.frames), expected, **SAME)
    torch.testing.assert_close(found.motion, (expected[:, 1:] - expected[:, :-1]).abs().mean((1, 2, 3, 4)), **SAME)


@pytest.mark.parametrize(
    ("clip", "frames", "window", "starts", "fewest"),
    [
        (9, 21, "random", [0, 3, 6, 9, 12], 33),  # 4 x 9 - 3 where the clip opens the video
        (9, 21, "last", [12], 36),
        (9, 9, "last", [0], 33),
        (0, 21, "random", None, 81),
    ],
)
def test_the_shortest_clip_counts(wan, clip, frames, window, starts, fewest):
    chosen = spec(window=window).model_copy(update={"clip": clip})
    assert fewest_frames(chosen, frames, 3, wan) == fewest
    if starts is not None:
        assert list(window_starts(chosen, frames, 3)) == starts


def test_a_reward_may_need_more_frames_than_a_clip_has_that_opens_the_video(wan, monkeypatch):
    """One latent is one frame at the start and four later; the scorers of `shapes` stand in: "mq" needs three
    frames.
    """
    monkeypatch.setattr(wan, "name", "shapes")
    unused: Any = None

    def source(window: str) -> ExperienceSource:
        one = spec(window=window).model_copy(update={"clip": 1, "rewards": {"mq": 1.0}})
        return ExperienceSource(one, unused, _setting(None), wan, unused, "nft")

    assert [reward.key for reward in source("last").roller.rewards] == ["mq"]
    with pytest.raises(RecipeError, match="mq: scores clips of 3 frames or more, the recipe's have 1"):
        source("random")

"""Scoring clips while the next are rolled out, and decoding them in parts, changes no number."""

import pytest
import torch

from astro_cli.core.background import Background
from astro_cli.recipe import load_recipe
from astro_cli.rewards.shapes import REWARDS
from astro_cli.training import clips
from astro_cli.training.build import build
from astro_cli.training.clips import Roller
from tests.tiny_world import TINY


@pytest.mark.parametrize("clip", [0, 9], ids=["whole videos", "candidate clips"])
def test_clips_scored_beside_the_rollout_are_those_scored_after_it(tiny_base, monkeypatch, clip):
    """The same latents, scores and histories as with the work done on the spot, 8 clips in four parts."""
    recipe = load_recipe("astrolabe_clip_detach_shapes", [*TINY, f"base.student={tiny_base}"])
    run_context, backbone = build(recipe, torch.device("cpu"))
    spec = recipe.stages["nft"].experience.model_copy(update={"parallel": 2, "group": 2, "frames": 15, "clip": clip})
    roller = Roller(spec, run_context, backbone, [REWARDS[key]() for key in ("vq", "mq")])
    prompts, seeds = ["a red circle"] * 4 + ["a blue square"] * 4, list(range(8))
    text = backbone.encode_text(prompts)

    def rolled() -> clips.Clips:
        return (
            roller.candidates(prompts, seeds, text, [1, 2, 3, 4], 6) if clip else roller.sequences(prompts, seeds, text)
        )

    beside = rolled()
    monkeypatch.setattr(clips, "Background", _OnTheSpot)
    after = rolled()
    assert torch.equal(beside.latents, after.latents)
    assert all(torch.equal(beside.scores[key], after.scores[key]) for key in ("vq", "mq"))
    assert beside.latents.shape[:2] == (8, clip or 15)
    assert len(beside.motion) == 8
    if not clip:
        assert beside.history is None
        return
    assert beside.history is not None
    assert beside.history.shape[:2] == (4, 6)  # once per group
    assert torch.equal(beside.history, after.history)
    for first in range(0, 8, 2):  # the two candidates of a group have clips of their own
        assert not torch.equal(beside.latents[first], beside.latents[first + 1])


@pytest.mark.parametrize(
    ("parallel", "decoded"), [(None, [8]), (8, [8]), (5, [4, 4]), (4, [4, 4]), (3, [3, 1, 3, 1]), (1, [1] * 8)]
)
def test_no_more_clips_than_allowed_are_decoded_at_once(tiny_base, monkeypatch, parallel, decoded):
    """Two groups of four: a group that is larger than `parallel` in parts, from its one history."""
    recipe = load_recipe("astrolabe_clip_detach_shapes", [*TINY, f"base.student={tiny_base}"])
    run_context, backbone = build(recipe, torch.device("cpu"))
    spec = recipe.stages["nft"].experience.model_copy(update={"group": 4, "frames": 15})
    prompts, seeds, rewards = ["a red circle"] * 4 + ["a blue square"] * 4, list(range(8)), [REWARDS["vq"]()]
    text, decode, sample = backbone.encode_text(prompts), clips.decode_candidates, clips.sample_history
    sizes, histories = [], []

    def rolled(parallel: int | None) -> clips.Clips:
        roller = Roller(spec.model_copy(update={"parallel": parallel}), run_context, backbone, rewards)
        return roller.candidates(prompts, seeds, text, [1, 2], 6)

    def decode_and_count(policy, states, seeds, *rest):
        sizes.append(len(seeds))
        return decode(policy, states, seeds, *rest)

    def sample_and_count(policy, states, seeds, *rest):
        histories.append(len(seeds))
        return sample(policy, states, seeds, *rest)

    whole = rolled(None)
    monkeypatch.setattr(clips, "decode_candidates", decode_and_count)
    monkeypatch.setattr(clips, "sample_history", sample_and_count)
    parts = rolled(parallel)
    assert sizes == decoded
    assert sum(histories) == 2  # each prompt's history once
    for one, other in (
        (whole.latents, parts.latents),
        (whole.history, parts.history),
        (whole.scores["vq"], parts.scores["vq"]),
    ):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


class _OnTheSpot(Background):
    def submit(self, work, *arguments):
        done = super().submit(work, *arguments)
        done.result()
        return done

"""Scoring clips while the next are rolled out changes no number."""

import pytest
import torch

from astro_cli.recipe import load_recipe
from astro_cli.rewards.shapes import REWARDS
from astro_cli.training import clips
from astro_cli.training.background import Background
from astro_cli.training.build import build
from astro_cli.training.clips import Roller
from tests.tiny_world import TINY


@pytest.mark.parametrize("rollout", ["sequence", "clip"])
def test_clips_scored_beside_the_rollout_are_those_scored_after_it(tiny_base, monkeypatch, rollout):
    """The same latents, scores and histories as with the work done on the spot, 8 clips in four parts."""
    recipe = load_recipe("astrolabe_clip_detach_shapes", [*TINY, f"base.student={tiny_base}"])
    setting, backbone = build(recipe, torch.device("cpu"))
    spec = recipe.stages["nft"].experience.model_copy(update={"parallel": 2, "group": 2, "frames": 15, "rollout": rollout})
    roller = Roller(spec, setting, backbone, [REWARDS[key]() for key in ("vq", "mq")])
    prompts, seeds = ["a red circle"] * 4 + ["a blue square"] * 4, list(range(8))
    text = backbone.encode_text(prompts)

    def rolled() -> clips.Clips:
        return roller.sequences(prompts, seeds, text) if rollout == "sequence" else roller.candidates(prompts, seeds, text, [1, 2, 3, 4], 6)

    beside = rolled()
    monkeypatch.setattr(clips, "Background", _OnTheSpot)
    after = rolled()
    assert torch.equal(beside.latents, after.latents)
    assert all(torch.equal(beside.scores[key], after.scores[key]) for key in ("vq", "mq"))
    assert beside.latents.shape[0] == len(beside.motion) == 8
    assert (beside.history is None) == (rollout == "sequence")
    assert beside.history is None or torch.equal(beside.history, after.history)


class _OnTheSpot(Background):
    def submit(self, work, *arguments):
        done = super().submit(work, *arguments)
        done.result()
        return done

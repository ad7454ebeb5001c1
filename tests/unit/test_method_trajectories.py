"""The old policy's trajectories, for an objective that wants them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from astro_cli.recipe import load_recipe
from astro_cli.spec import Recipe
from astro_cli.training import clips
from astro_cli.training.build import build, make_accelerator
from astro_cli.training.experience import ExperienceSource
from astro_cli.training.sources import SourceContext
from tests.probe_runs import CPU, rows, train
from tests.tiny_world import TINY

pytestmark = pytest.mark.usefixtures("outside_kinds")

RECORDED = """
extends = "base/shapes.toml"
name = "outside"
command = "rl"
order = ["outside"]
[lora]
rank = 2
alpha = 2
[stages.outside]
steps = 1
batch = 8
accumulate = 2
objective = { kind = "policy_gradient" }
optim.student = { lr = 0.3 }
experience = { prompts = 2, group = 4, updates = 2, parallel = 3, rewards = { vq = 1.0, mq = 1.0 } }
"""


def recorded_recipe(folder: Path, bases: dict[str, Path], clip: int) -> Recipe:
    """Two groups of four in two updates of two parts: clips behind one block of shared history, or whole videos."""
    (folder / "outside.toml").write_text(RECORDED)
    frames = [f"stages.outside.experience.{key}" for key in ("frames=9", f"clip={clip}", 'window="last"')]
    return load_recipe(str(folder / "outside.toml"), [*TINY, f"base.student={bases['student']}", *frames])


@pytest.mark.parametrize("clip", [6, 0], ids=["groups on shared history", "whole videos"])
def test_an_objective_that_wants_trajectories_gets_the_old_policys_steps(clip, bases, tmp_path):
    recipe, (steps, frames) = recorded_recipe(tmp_path, bases, clip), (6, clip or 9)
    trainer = train(recipe, tmp_path / "run")
    seen = importlib.import_module("astro_cli.objectives.policy_gradient").Objective.seen
    assert len(seen) == 4  # two updates in two parts, of two clips each
    for batch, _ in seen:
        found, shape = batch.trajectory, (2, frames, *trainer.run_context.latent_shape)
        assert found.states_KBFCHW.shape == (steps + 1, *shape)
        assert found.means_SBFCHW.shape == (steps, *shape)
        assert found.log_prob_RBF.shape == (steps - 1, 2, frames)
        assert torch.equal(found.latents, batch.latents_BFCHW)  # the rows are those of its clips
        assert (batch.history_PFCHW is not None) == bool(clip)
    (row,) = rows(tmp_path / "run")
    assert row["student/old_error"] < 1e-5  # its own steps replayed: mean over parts of the largest difference
    first, second = (torch.cat([ratio_B for _, ratio_B in part]) for part in (seen[:2], seen[2:]))
    torch.testing.assert_close(first, torch.ones(4), atol=1e-5, rtol=0)
    assert (second - 1).abs().max() > 1e-4  # the policy has moved


@pytest.mark.parametrize("clip", [6, 0], ids=["groups on shared history", "whole videos"])
def test_recording_is_asked_for_and_leaves_the_clips_as_they_are(clip, bases, tmp_path, monkeypatch):
    recipe, made = recorded_recipe(tmp_path, bases, clip), []
    join = clips.Clips.join
    monkeypatch.setattr(clips.Clips, "join", staticmethod(lambda *parts: made.append(join(*parts)) or made[-1]))
    method = importlib.import_module("astro_cli.objectives.policy_gradient").Objective
    for wanted in (True, False):
        monkeypatch.setattr(method, "wants_trajectory", wanted)
        run_context, backbone = build(recipe, CPU)
        context = SourceContext(
            "outside", recipe.stages["outside"], recipe, run_context, backbone, make_accelerator(recipe), print, print
        )
        batches = ExperienceSource.make(context).batches(0, "student")
        assert all((batch.trajectory is not None) == wanted for batch in batches)
    recorded, plain = made
    assert torch.equal(recorded.latents, plain.latents)
    assert all(torch.equal(recorded.scores[key], plain.scores[key]) for key in plain.scores)
    assert plain.trajectory is None

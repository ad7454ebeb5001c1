"""Where Astrolabe's released code differs from its paper (arXiv 2603.17051), option by option, by hand on small
numbers.
"""

import re

import pytest
import torch
from test_long_tuning import SHAPE, batch, run_context

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import RecipeError
from astro_cli.core.disagreement import RiskRatio
from astro_cli.models import lora
from astro_cli.models.wan.masks import block_causal_mask
from astro_cli.objectives import nft
from astro_cli.objectives.base import Batch
from astro_cli.objectives.nft import Config, Objective
from astro_cli.recipe import load_recipe
from astro_cli.spec import EmaSpec, ExperienceSpec
from astro_cli.training.experience import ExperienceSource


def test_one_timestep_for_all_that_passes_together():
    objective = Objective(Config(draws="released"), run_context())
    drawn = [objective._timesteps(Batch(seeds=[seed, seed + 100], prompts=["", ""]), 6) for seed in range(20)]
    assert all(len(steps.unique()) == 1 and steps.shape == (2, 6) for steps in drawn)
    assert {steps[0, 0].item() for steps in drawn} == set(objective.steps.float().tolist())
    noise = objective._drawn(Batch(seeds=[1, 2], prompts=["", ""])).noise_like(torch.zeros(2, 6, *SHAPE), "noise")
    assert not torch.equal(noise[0], noise[1])  # eps stays each sample's own


def test_theta_old_follows_a_ramp(monkeypatch):
    kept = []
    monkeypatch.setattr(nft.lora, "blend", lambda module, target, source, share: kept.append((target, source, share)))
    objective = Objective(Config(old_rule="released", old_decay=0.9), run_context())
    for step in (0, 1, 499, 4000):
        objective.after_step(step)
    assert kept == [("old", lora.TRAINED, pytest.approx(share)) for share in (0.001, 0.002, 0.5, 0.5)]


@pytest.mark.parametrize("window", [None, 2])
def test_without_context_every_frame_sees_the_noised_frames_before_it(window):
    here, frames = run_context(cache=CacheSpec(window=window, sink=0)), 4
    objective, samples = Objective(Config(context="released"), here), batch(0, clip=frames)
    rng = torch.Generator().manual_seed(3)
    x_t = torch.randn(2, frames, *SHAPE, generator=rng, dtype=torch.float64)
    timestep = torch.full((2, frames), 500.0)

    def velocity(x_t):
        with torch.no_grad(), here.roles.use("student") as network:
            text = network.encode_text(samples.text_BMD)
            return objective.context(network, text, samples, samples.latents_BFCHW).velocity(
                network, x_t, timestep, text
            )

    with torch.no_grad(), here.roles.use("student") as network:
        mask = block_causal_mask(frames, network.tokens_per_frame(*SHAPE[-2:]), 1, window)
        plain = network(x_t, timestep, network.encode_text(samples.text_BMD), mask=mask)
    found = velocity(x_t)
    assert torch.equal(found, plain)
    moved = x_t.clone()
    moved[:, 1] += 1
    changed = [not torch.allclose(velocity(moved)[:, frame], found[:, frame], atol=1e-12) for frame in range(frames)]
    # with a window of two frames and two layers frame 3 still hears of frame 1 through frame 2
    assert changed == [False, True, True, True]


def test_its_ranks_mark_what_the_primary_scores_below_the_others():
    # the primary ranks sample 2 highest, the other reward lowest: over-scored; sample 0 the other way round
    scores = {"vq": torch.tensor([0.0, 1.0, 2.0]), "mq": torch.tensor([2.0, 1.0, 0.0])}
    masks = {}
    for ranks in ("paper", "released"):
        source = ExperienceSource.__new__(ExperienceSource)  # only what the mask needs of it
        source.spec = ExperienceSpec(prompts=1, group=3, rewards={"vq": 1.0, "mq": 0.0}, primary="vq", ranks=ranks)
        source.primary, source.risk, source.metrics = "vq", RiskRatio(), {}
        masks[ranks] = source._at_risk(scores).tolist()
    assert masks == {"paper": [False, False, True], "released": [True, False, False]}


def test_the_penalty_is_of_x0_where_the_errors_are():
    """x0 - x0_ref is -sigma (v - v_ref), so at one sigma for all frames the penalty is sigma^2 times that of
    velocities.
    """

    def penalty(space: str, step: float) -> float:
        config = Config(space=space, kl="uniform", draws="released", context="released")
        objective = Objective(config, run_context())
        objective.steps = torch.tensor([step])
        return objective.loss("student", batch(0)).metrics["kl"]

    assert penalty("velocity", 500.0) > 1e-4
    for step, share in (
        (1000.0, 1.0),
        (750.0, 9 / 16),
        (500.0, 1 / 4),
        (250.0, 1 / 16),
    ):  # released steps: .469 on average
        assert penalty("x0", step) == pytest.approx(share * penalty("velocity", step), rel=1e-5)


def test_no_context_goes_with_whole_videos_only():
    with pytest.raises(
        RecipeError, match=re.escape("stages.nft.experience.clip: found 6, expected 0: context = 'released'")
    ):
        load_recipe("astrolabe_released_shapes", ["stages.nft.experience.clip=6"])


def test_the_released_recipe_saves_an_average_of_the_weights():
    assert load_recipe("astrolabe_released_shapes").stages["nft"].ema == EmaSpec(decay=0.9, ramp=True)

"""Distillation stages in their limit cases: a network that predicts nothing, and schedules that hold the student's steps."""

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import sigma_of, warp_timesteps
from astro_cli.models.roles import Roles
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import ar_diffusion, consistency, flow_matching, ode
from astro_cli.objectives.base import Batch, Setting
from astro_cli.sampling.ode import guided

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)


@pytest.fixture
def setting() -> Setting:
    """Networks whose head is zero: they predict v = 0 everywhere."""
    torch.manual_seed(0)
    roles = Roles()
    for role in ("student", "teacher"):
        network = CausalWan(TINY)
        torch.nn.init.zeros_(network.proj_out.weight)
        torch.nn.init.zeros_(network.proj_out.bias)
        roles.add(role, network, trained=role == "student")
    return Setting(
        roles=roles, steps=warp_timesteps((1000, 750, 500, 250), 4.0), shift=4.0, frames=4, block=2, latent_shape=(2, 4, 4),
        cache=CacheSpec(), teacher_steps=4, guidance=2.0, encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
    )  # fmt: skip


def batch() -> Batch:
    rng = torch.Generator().manual_seed(3)
    return Batch([4, 5], ["", ""], text_BMD=torch.randn(2, 4, 5, generator=rng), latents_BFCHW=torch.randn(2, 4, 2, 4, 4, generator=rng))


@pytest.mark.parametrize("module", [flow_matching, ar_diffusion])
def test_a_network_that_predicts_nothing_pays_the_whole_target(setting, module):
    sample = batch()
    loss = module.Objective(module.Config(), setting).loss("student", sample).loss
    target = sample.noise_like(sample.latents_BFCHW, "noise") - sample.latents_BFCHW
    torch.testing.assert_close(loss, target.pow(2).mean())


def test_ar_diffusion_draws_one_level_per_block():
    sigma = ar_diffusion.block_sigma(batch(), 4, 2, 4.0)
    assert sigma.shape == (2, 4)
    assert torch.equal(sigma[:, 0], sigma[:, 1])
    assert torch.equal(sigma[:, 2], sigma[:, 3])
    assert not torch.equal(sigma[:, 0], sigma[:, 2])


def test_consistency_is_zero_for_a_student_that_is_consistent_already(setting):
    # v = 0: the teacher does not move x, and both ends predict x0 = x_t
    objective = consistency.Objective(consistency.Config(grid=8), setting)
    assert objective.loss("student", batch()).loss.item() == 0.0


def test_consistency_target_follows_by_the_decay(setting):
    objective = consistency.Objective(consistency.Config(decay=0.75), setting)
    student = setting.roles.modules["student"]
    with torch.no_grad():
        student.proj_out.bias.fill_(4.0)
    objective.after_step(0)  # .75 * 0 + .25 * 4 = 1
    assert objective.target.proj_out.bias[0].item() == 1.0
    assert objective.teacher.proj_out.bias[0].item() == 0.0


def test_the_ode_grid_holds_the_students_steps_exactly():
    steps = warp_timesteps((1000, 750, 500, 250), 4.0)
    grid, kept = ode.grid_through(steps, 7, 4.0)  # 7 intervals hold none of the inner steps by themselves
    assert torch.allclose(grid[list(kept)], sigma_of(steps))
    assert grid[0] == 1
    assert grid[-1] == 0
    assert bool((grid[1:] < grid[:-1]).all())


def test_ode_regression_is_zero_where_the_teacher_stands_still(setting):
    # v = 0: every stored state equals the end point, and so does the student's x0 = x_t - sigma * 0
    objective = ode.Objective(ode.Config(pairs=4), setting)
    objective.prepare(lambda use, size: Batch(list(range(size)), [""] * size, text_BMD=torch.zeros(size, 4, 5)))
    assert objective.loss("student", batch()).loss.item() == 0.0


def test_guidance_runs_both_branches_against_the_empty_prompt(setting):
    network = setting.roles.modules["student"]
    with torch.no_grad():
        network.proj_out.weight.normal_(generator=torch.Generator().manual_seed(1))
    text, x, t = batch().text_BMD, batch().latents_BFCHW, torch.full((2, 4), 500.0)
    with torch.no_grad():
        c, u = (network(x, t, network.encode_text(states)) for states in (text, torch.zeros_like(text)))
        torch.testing.assert_close(guided(network, text, 3.0)(x, t), u + 3.0 * (c - u), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(guided(network, text, 1.0)(x, t), c, atol=1e-6, rtol=1e-5)

"""Distillation stages in their limit cases: a network that predicts nothing, and schedules that hold the student's
steps.
"""

from dataclasses import replace

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import sigma_of, warp_timesteps
from astro_cli.models.roles import Roles
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import ar_diffusion, consistency, dmd, flow_matching, ode
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.sampling.ode import grid_through, guided

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)


@pytest.fixture
def run_context() -> RunContext:
    """Networks whose head is zero: they predict v = 0 everywhere."""
    torch.manual_seed(0)
    roles = Roles()
    for role in ("student", "teacher"):
        network = CausalWan(TINY)
        torch.nn.init.zeros_(network.proj_out.weight)
        torch.nn.init.zeros_(network.proj_out.bias)
        roles.add(role, network, trained=role == "student")
    return RunContext(
        roles=roles,
        steps=warp_timesteps((1000, 750, 500, 250), 4.0),
        shift=4.0,
        frames=4,
        block=2,
        latent_shape=(2, 4, 4),
        cache=CacheSpec(),
        encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
    )


def batch() -> Batch:
    rng = torch.Generator().manual_seed(3)
    return Batch(
        [4, 5],
        ["", ""],
        text_BMD=torch.randn(2, 4, 5, generator=rng),
        latents_BFCHW=torch.randn(2, 4, 2, 4, 4, generator=rng),
    )


@pytest.mark.parametrize("module", [flow_matching, ar_diffusion])
def test_a_network_that_predicts_nothing_pays_the_whole_target(run_context, module):
    sample = batch()
    loss = module.Objective(module.Config(), run_context).loss("student", sample).loss
    target = sample.noise_like(sample.latents_BFCHW, "noise") - sample.latents_BFCHW
    torch.testing.assert_close(loss, target.pow(2).mean())


def test_half_of_the_clips_have_a_noise_level_per_latent_frame():
    sample = Batch(list(range(400)), [""] * 400)
    plain, mixed = (flow_matching.noise_levels(sample, 4, 4.0, share) for share in (0.0, 0.5))
    assert torch.equal(plain, flow_matching.shift_sigma(sample.uniform(1, "sigma"), 4.0).expand(-1, 4))
    alone = (mixed != mixed[:, :1]).any(1)
    assert torch.equal(mixed[~alone], plain[~alone])  # the others keep the level they have without
    assert 160 < int(alone.sum()) < 240
    assert all(len(row.unique()) == 4 for row in mixed[alone])
    assert flow_matching.noise_levels(sample, 4, 4.0, 1.0).diff(dim=1).ne(0).all()
    even = flow_matching.noise_levels(sample, 4, 4.0, 1.0, 1.0)  # uniform levels: mean 1/2, standard error .29 / 40
    assert abs(even.mean().item() - 0.5) < 0.03
    torch.testing.assert_close(flow_matching.shift_sigma(even, 4.0), flow_matching.noise_levels(sample, 4, 4.0, 1.0))


def test_ar_diffusion_draws_one_level_per_block():
    sigma = ar_diffusion.block_sigma(batch(), 4, 2, 4.0)
    assert sigma.shape == (2, 4)
    assert torch.equal(sigma[:, 0], sigma[:, 1])
    assert torch.equal(sigma[:, 2], sigma[:, 3])
    assert not torch.equal(sigma[:, 0], sigma[:, 2])


def test_consistency_is_zero_for_a_student_that_is_consistent_already(run_context):
    # v = 0: the teacher does not move x, and both ends predict x0 = x_t
    objective = consistency.Objective(consistency.Config(grid=8), run_context)
    assert objective.loss("student", batch()).loss.item() == 0.0


def test_consistency_target_follows_by_the_decay(run_context):
    objective = consistency.Objective(consistency.Config(decay=0.75), run_context)
    student = run_context.roles.modules["student"]
    with torch.no_grad():
        student.proj_out.bias.fill_(4.0)
    objective.after_step(0)  # .75 * 0 + .25 * 4 = 1
    assert objective.target.proj_out.bias[0].item() == 1.0
    assert objective.teacher.proj_out.bias[0].item() == 0.0


def test_the_ode_grid_holds_the_students_steps_exactly():
    steps = warp_timesteps((1000, 750, 500, 250), 4.0)
    grid, kept = grid_through(steps, 7, 4.0)  # 7 intervals hold none of the inner steps by themselves
    assert torch.allclose(grid[list(kept)], sigma_of(steps))
    assert grid[0] == 1
    assert grid[-1] == 0
    assert bool((grid[1:] < grid[:-1]).all())


def test_ode_regression_is_zero_where_the_teacher_stands_still(run_context):
    # v = 0: every stored state equals the end point, and so does the student's x0 = x_t - sigma * 0
    objective = ode.Objective(ode.Config(pairs=4, steps=4, guidance=2.0), run_context)
    objective.prepare(lambda use, size: Batch(list(range(size)), [""] * size, text_BMD=torch.zeros(size, 4, 5)))
    assert objective.loss("student", batch()).loss.item() == 0.0


def test_guidance_runs_both_branches_against_the_empty_prompt(run_context):
    network = run_context.roles.modules["student"]
    with torch.no_grad():
        network.proj_out.weight.normal_(generator=torch.Generator().manual_seed(1))
    text, x, t = batch().text_BMD, batch().latents_BFCHW, torch.full((2, 4), 500.0)
    empty = torch.randn(text.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        c, u = (network(x, t, network.encode_text(states)) for states in (text, empty))
        torch.testing.assert_close(guided(network, text, 3.0, empty)(x, t), u + 3.0 * (c - u), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(guided(network, text, 1.0, empty)(x, t), c, atol=1e-6, rtol=1e-5)


def speaking(run_context: RunContext, empty: torch.Tensor) -> RunContext:
    """The setting with networks that predict something, and these states for the empty prompt."""
    for network in run_context.roles.modules.values():
        torch.nn.init.normal_(network.proj_out.weight, generator=torch.Generator().manual_seed(1))
    return replace(
        run_context,
        encode_text=lambda prompts: (
            empty.expand(len(prompts), -1, -1) if prompts[0] == "" else torch.zeros(len(prompts), 4, 5)
        ),
    )


def told(text: torch.Tensor) -> Batch:
    return replace(batch(), text_BMD=text)


@pytest.mark.parametrize("stage", ["ode", "consistency", "dmd"])
def test_the_unconditional_branch_is_the_empty_prompt(run_context, stage):
    """A batch of empty prompts: c = u, so guidance of any strength is none; against another empty prompt it is not."""
    empty, other = (torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3))

    def result(states: torch.Tensor, scale: float) -> torch.Tensor:
        here = speaking(run_context, states)
        sample = told(empty.expand(2, -1, -1))
        if stage == "ode":
            objective = ode.Objective(ode.Config(pairs=2, steps=4, guidance=scale), here)
            objective.prepare(lambda use, size: sample)
            return objective.states
        if stage == "consistency":
            return consistency.Objective(consistency.Config(grid=8, guidance=scale), here).loss("student", sample).loss
        here.roles.modules["critic"] = here.roles.modules["student"]
        assert sample.latents_BFCHW is not None
        gradient, _ = dmd.Objective(dmd.Config(guidance=scale), here).score_difference(sample, sample.latents_BFCHW)
        return gradient

    with torch.no_grad():
        plain = result(empty, 1.0)
        torch.testing.assert_close(result(empty, 6.0), plain, atol=2e-4, rtol=2e-4)
        assert (result(other, 6.0) - plain).abs().max() > 1e-3


def test_a_dropped_caption_is_the_empty_prompt(run_context):
    empty = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(2))
    sample, here = batch(), speaking(run_context, empty)
    assert torch.equal(flow_matching.masked_text(sample, 1.0, here), empty.expand(2, -1, -1))
    assert torch.equal(flow_matching.masked_text(sample, 0.0, here), sample.text_BMD)


def test_the_ode_stage_sees_what_a_rolling_cache_with_a_sink_holds(run_context):
    objective = ode.Objective(
        ode.Config(pairs=2, steps=4, guidance=2.0), replace(run_context, frames=8, cache=CacheSpec(window=4, sink=2))
    )
    objective.prepare(lambda use, size: Batch(list(range(size)), [""] * size, text_BMD=torch.zeros(size, 4, 5)))
    tokens = 4  # a frame of 4 x 4 cells in patches of 2 x 2
    seen = objective.mask[::tokens, ::tokens]
    assert seen[6].tolist() == [
        True,
        True,
        False,
        False,
        False,
        False,
        True,
        True,
    ]  # window 4: the sink and the block itself

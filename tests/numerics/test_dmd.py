"""Distribution matching distillation: gradient and loss by hand, and what carries gradients in a self-rollout."""

from dataclasses import replace

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.roles import Roles
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import dmd
from astro_cli.objectives.base import Batch, RunContext

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)


@pytest.fixture
def run_context() -> RunContext:
    torch.manual_seed(0)
    roles = Roles()
    for role in ("student", "critic", "teacher"):
        roles.add(role, CausalWan(TINY), trained=role != "teacher")
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


def batch(size: int = 2) -> Batch:
    text = torch.randn(size, 4, 5, generator=torch.Generator().manual_seed(3))
    return Batch(seeds=list(range(size)), prompts=[""] * size, text_BMD=text)


def test_gradient_by_hand():
    # x 1, real 3, fake 2: g = (2 - 3) / |1 - 3| = -1/2, so descent moves x up, towards the teacher
    one = torch.ones(1, 1, 1, 1, 1)
    gradient, non_finite = dmd.dmd_gradient(one, 3 * one, 2 * one)
    assert (gradient.item(), non_finite) == (-0.5, 0)


def test_entries_of_the_gradient_that_are_not_finite_are_zero_and_counted():
    # normaliser mean|0 - 2| = 2: (8 - 2) / 2 = 3, the other three entries are inf, -inf and nan
    x, real = torch.zeros(1, 1, 1, 2, 2), torch.full((1, 1, 1, 2, 2), 2.0)
    fake = torch.tensor([8.0, float("inf"), float("-inf"), float("nan")]).view(1, 1, 1, 2, 2)
    gradient, non_finite = dmd.dmd_gradient(x, real, fake)
    assert gradient.flatten().tolist() == [3.0, 0.0, 0.0, 0.0]
    assert non_finite == 3


def test_a_critic_that_overflows_is_counted_in_the_metrics_and_gives_no_loss(run_context):
    with torch.no_grad():
        run_context.roles.modules["critic"].proj_out.bias.fill_(float("inf"))
    out = dmd.Objective(dmd.Config(), run_context).loss("student", batch())
    assert out.metrics["dmd_non_finite"] == 2 * 4 * 2 * 4 * 4  # every entry of 2 videos of 4 frames, 2 channels, 4 x 4
    assert out.metrics["dmd_gradient"] == out.loss.item() == 0.0


def test_loss_gradient_is_g_over_numel():
    x = torch.zeros(1, 2, 1, 1, 2, requires_grad=True)
    g = torch.tensor([1.0, -2.0, 0.5, 0.0]).view(1, 2, 1, 1, 2)
    dmd.dmd_loss(x, g).sum().backward()
    assert torch.allclose(x.grad, g / 4)


def test_equal_critic_and_teacher_give_no_gradient(run_context):
    roles = run_context.roles
    roles.modules["critic"].load_state_dict(roles.modules["teacher"].state_dict())
    objective = dmd.Objective(dmd.Config(guidance=1.0), run_context)
    x = torch.randn(2, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    assert objective.score_difference(batch(), x)[0].abs().max() < 1e-5


def test_each_role_gets_gradients_alone(run_context):
    objective = dmd.Objective(dmd.Config(), run_context)
    for role, other in (("student", "critic"), ("critic", "student")):
        objective.loss(role, batch()).loss.backward()
        touched = {
            r: any(p.grad is not None and p.grad.abs().sum() > 0 for p in run_context.roles.modules[r].parameters())
            for r in (role, other)
        }
        assert touched == {role: True, other: False}
        for module in run_context.roles.modules.values():
            module.zero_grad(set_to_none=True)


def test_rollout_detaches_history(run_context):
    """The last block's output depends on the parameters only through its own exit step: no gradient reaches the first
    block's x0.
    """
    objective = dmd.Objective(dmd.Config(), run_context)
    x = objective.rollout(batch(), gradient=True)
    assert x.requires_grad
    first = x[:, :2]
    grads = torch.autograd.grad(x[:, 2:].sum(), first, allow_unused=True)
    assert grads[0] is None


def test_rollout_with_and_without_gradient_is_the_same(run_context):
    objective = dmd.Objective(dmd.Config(), run_context)
    with_gradient = objective.rollout(batch(), gradient=True).detach()
    without = objective.rollout(batch(), gradient=False)
    assert torch.allclose(with_gradient, without, atol=1e-6)


def test_a_rollout_longer_than_the_trained_length_leaves_the_window(run_context):
    short, long = (dmd.Objective(dmd.Config(rollout_frames=frames), run_context) for frames in (None, 8))
    x, longer = (objective.rollout(batch(), gradient=False) for objective in (short, long))
    assert longer.shape == (2, 8, 2, 4, 4)
    assert torch.allclose(longer[:, :4], x, atol=1e-6)
    windowed = dmd.Objective(dmd.Config(rollout_frames=8), replace(run_context, cache=CacheSpec(window=4)))
    cut = windowed.rollout(batch(), gradient=False)
    assert torch.allclose(cut[:, :4], x, atol=1e-6)
    assert not torch.allclose(cut[:, 4:], longer[:, 4:], atol=1e-3)

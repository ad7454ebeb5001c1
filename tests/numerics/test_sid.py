"""Score identity distillation: values by hand, the gradient against finite differences, what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from test_dmd import batch, run_context  # noqa: F401  (a fixture)

from astro_cli.objectives import dmd, sid


def tensor(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1, 1), value)


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, 0.5), (0.5, 0.75), (0.0, 1.0)])
def test_the_loss_by_hand(alpha, expected):
    # x 1, r 3, f 2: (3 - 2) ((3 - 1) - alpha (3 - 2)) / |1 - 3| = (2 - alpha) / 2
    assert sid.sid_loss(tensor(1), tensor(3), tensor(2), alpha).item() == expected


def test_the_normaliser_carries_no_gradient():
    # d/dx of (r - f) ((r - x) - (r - f)) / n with n fixed: - (3 - 2) / 2
    x = tensor(1.0).requires_grad_()
    sid.sid_loss(x, tensor(3), tensor(2), 1.0).sum().backward()
    assert x.grad.item() == -0.5


@pytest.fixture
def speaking(run_context):  # noqa: F811
    """Critic and teacher with heads that say something."""
    torch.manual_seed(1)
    for role in ("critic", "teacher"):
        torch.nn.init.normal_(run_context.roles.modules[role].proj_out.weight, std=0.2)
    return run_context


def test_the_gradient_passes_through_both_scores(speaking):
    """Along a random direction, with the normaliser held."""
    method, given = sid.Objective(sid.Config(), speaking), batch()
    x = torch.randn(2, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss_B, _ = method.matched(given, x)
    (slope,) = torch.autograd.grad(loss_B.sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        real, _ = method.scores(given, x)
        held = (x - real).abs().mean((1, 2, 3, 4)).double()

        def free(amount: float) -> torch.Tensor:
            """The loss times its own normaliser, over the one that is held."""
            moved = x + amount * direction
            r, f = method.scores(given, moved)
            own = (moved - r).abs().mean((1, 2, 3, 4)).double()
            return (sid.sid_loss(moved, r, f, 1.0) * own / held).sum()

        measured = (free(1e-2) - free(-1e-2)) / 2e-2
    assert (slope * direction).sum().item() == pytest.approx(measured.item(), rel=5e-3)
    detached = torch.autograd.grad(sid.sid_loss(x, *(s.detach() for s in method.scores(given, x)), 1.0).sum(), x)[0]
    assert (slope - detached).abs().max() > 0.05 * slope.abs().max()


def test_the_loss_is_of_the_rollout_and_reaches_the_student_alone(speaking):
    method, given = sid.Objective(sid.Config(), speaking), batch()
    out = method.loss("student", given)
    x = method.rollout(given, gradient=False)
    with torch.no_grad():
        expected = sid.sid_loss(x, *method.scores(given, x), 1.0).mean()
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    out.loss.backward()
    grads = {role: [p.grad for p in m.parameters() if p.grad is not None] for role, m in speaking.roles.modules.items()}
    assert any(grad.abs().max() > 0 for grad in grads["student"])
    assert grads["critic"] == grads["teacher"] == []


def test_equal_scores_give_no_loss_and_the_critic_is_dmds(speaking):
    critic, teacher = (speaking.roles.modules[role] for role in ("critic", "teacher"))
    plain = dmd.Objective(dmd.Config(), speaking).loss("critic", batch()).loss
    assert torch.equal(sid.Objective(sid.Config(), speaking).loss("critic", batch()).loss, plain)
    critic.load_state_dict(teacher.state_dict())
    out = sid.Objective(sid.Config(guidance=1.0), speaking).loss("student", batch())
    assert out.loss.item() == pytest.approx(0.0, abs=1e-9)

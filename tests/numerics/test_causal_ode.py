"""Causal ODE distillation: values worked by hand, limits, causality of the trajectories, what a resume needs."""

import pytest
import torch
from test_distillation import batch, run_context  # noqa: F401  (a fixture)

from astro_cli.core.flow import sigma_of
from astro_cli.objectives import causal_ode
from astro_cli.objectives.base import Batch

CONFIG = causal_ode.Config(pairs=2, steps=5, guidance=3.0)


@pytest.fixture
def objective(run_context) -> causal_ode.Objective:  # noqa: F811
    """Teacher and student predict v = 0."""
    made = causal_ode.Objective(CONFIG, run_context)
    made.prepare(lambda use, size: batch())
    return made


def test_a_teacher_that_stands_still_costs_nothing(objective):
    # v = 0: every state and the end point are x_T, and so is the student's x0 = x_t - sigma * 0
    assert objective.loss("student", batch()).loss.item() == 0.0


def test_a_constant_velocity_is_worked_by_hand(objective):
    # v = b everywhere, whatever the guidance: x_sigma = x_T + (sigma - 1) b and x_end = x_T - b, so a student with
    # v = 0 predicts x_sigma and is off by sigma b
    with torch.no_grad():
        objective.teacher.proj_out.bias.fill_(0.5)
    sample = batch()
    drawn = (sample.uniform(1, "step")[:, 0] * len(objective.run_context.steps)).long()
    sigma = sigma_of(objective.run_context.steps[drawn]).float()
    torch.testing.assert_close(objective.loss("student", sample).loss, (0.5 * sigma).square().mean())


def test_a_student_that_is_the_teacher_costs_nothing_where_the_velocity_is_constant(objective):
    with torch.no_grad():
        for network in (objective.teacher, objective.run_context.roles.modules["student"]):
            network.proj_out.bias.fill_(0.5)
    assert objective.loss("student", batch()).loss.item() == pytest.approx(0.0, abs=1e-10)


def shaken(objective: causal_ode.Objective) -> None:
    """Give the teacher a head that says something."""
    with torch.no_grad():
        objective.teacher.proj_out.weight.normal_(generator=torch.Generator().manual_seed(1))


def test_a_block_sees_the_clean_blocks_before_it_and_no_others(objective):
    shaken(objective)
    sample = batch()
    assert sample.latents_BFCHW is not None

    def states(changed: slice) -> torch.Tensor:
        clean = sample.latents_BFCHW.clone()
        clean[:, changed] += 1.0
        return objective.trajectories(Batch(sample.seeds, sample.prompts, sample.text_BMD, clean))

    plain = objective.trajectories(sample)
    assert plain.shape == (2, 5, 4, 2, 4, 4)  # four steps and the end point
    torch.testing.assert_close(states(slice(2, 4)), plain, rtol=0, atol=1e-6)  # the last block is no one's context
    first = states(slice(0, 2))
    torch.testing.assert_close(first[:, :, :2], plain[:, :, :2], rtol=0, atol=1e-6)
    assert (first[:, 1:, 2:] - plain[:, 1:, 2:]).abs().max() > 1e-4


def test_a_resumed_run_makes_the_same_trajectories(objective, run_context):  # noqa: F811
    shaken(objective)
    objective.loss("student", batch())
    again = causal_ode.Objective(CONFIG, run_context)  # its teacher is the student as it is now
    again.prepare(lambda use, size: batch())
    again.load_state(objective.state())
    again.loss("student", batch())
    assert torch.equal(again.states, objective.states)

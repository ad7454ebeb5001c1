"""Delta Forcing: gate, discrepancy and continuity by hand, its limits, what carries gradients, the calibration."""

from __future__ import annotations

import math

import pytest
import torch
from test_long_sequence import batch, later, run_context, sequence, text  # noqa: F401  (a fixture)

from astro_cli.objectives import delta, long_tuning
from astro_cli.objectives.base import RunContext

KEYS = {"frames": 14, "overlap": 2}


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values)


def test_the_gate_by_hand():
    # mu .5, s 4: sigmoid(2) = .880797, sigmoid(1) = .731059, sigmoid(0) = .5, sigmoid(-2) = .119203
    weights = delta.gate(torch.tensor([0.0, 0.25, 0.5, 1.0]), mu=0.5, s=4.0)
    assert weights.tolist() == pytest.approx([0.880797, 0.731059, 0.5, 0.119203], abs=1e-6)


def test_the_discrepancy_by_hand():
    # the student moves by (1, 0), the teacher by (1, 0): none; by (4, 4): (3, 4) between them, of length 5
    zero, one = rows([0.0, 0.0], [0.0, 0.0]), rows([1.0, 0.0], [1.0, 0.0])
    real = rows([3.0, 1.0], [6.0, 5.0])
    rho = delta.discrepancy(real, rows([2.0, 1.0], [2.0, 1.0]), one, zero)
    assert rho.tolist() == [0.0, 5.0]


def test_a_teachers_jump_across_the_students_move_is_its_length():
    # equal steps along x, and a jump of 2 along y on top: rho 2, whatever the common step is
    for step in (0.0, 0.7):
        moved = rows([step, 0.0])
        rho = delta.discrepancy(rows([step, 2.0]), rows([0.0, 0.0]), moved, rows([0.0, 0.0]))
        assert rho.item() == pytest.approx(2.0)


def test_the_gate_carries_no_gradient_and_continuity_reaches_this_chunk_only():
    now, before = rows([1.0, 2.0]).requires_grad_(), rows([0.0, 0.0]).requires_grad_()
    assert not delta.gate((now - before).norm(dim=1), 0.5, 4.0).requires_grad
    loss = delta.continuity(now, before)
    assert loss.item() == 5.0  # 1 + 4
    loss.sum().backward()
    assert now.grad.tolist() == [[2.0, 4.0]]
    assert before.grad is None


def test_the_calibration_puts_half_at_the_90_and_a_twentieth_at_the_99_percent_quantile():
    rho = torch.linspace(0, 1, 1001)
    mu, s = delta.calibrated(rho)
    assert (mu, s) == pytest.approx((0.9, math.log(19) / 0.09))
    assert delta.gate(torch.tensor([0.9, 0.99]), mu, s).tolist() == pytest.approx([0.5, 0.05])


def objective(run_context: RunContext, **keys) -> delta.Objective:  # noqa: F811
    keys = {"phi": "teacher", "mu": 0.5, "s": 4.0} | keys
    return delta.Objective(delta.Config(**KEYS, **keys), run_context)


def gradients(run_context: RunContext, loss: torch.Tensor) -> list[torch.Tensor]:  # noqa: F811
    student = run_context.roles.modules["student"]
    student.zero_grad(set_to_none=True)
    loss.backward()
    return [p.grad.clone() for p in student.parameters() if p.grad is not None]


def loss_of(run_context: RunContext, method, *, start: int = 6, switch: int = 1000):  # noqa: F811
    """The student's loss on the second chunk, or the first."""
    long = later(run_context, switch=switch) if start else sequence(run_context, switch=switch)
    return method.loss("student", batch(long, shared=5))


def test_an_infinite_mu_is_long_tuning_bit_for_bit(run_context):  # noqa: F811
    plain = long_tuning.Objective(long_tuning.Config(**KEYS), run_context)
    for start in (0, 6):
        expected = loss_of(run_context, plain, start=start)
        found = loss_of(run_context, objective(run_context, mu=1e9), start=start)
        assert torch.equal(found.loss, expected.loss)
        one, other = (gradients(run_context, out.loss) for out in (expected, found))
        assert len(one) == len(other)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_first_chunk_has_no_delta(run_context):  # noqa: F811
    plain = long_tuning.Objective(long_tuning.Config(**KEYS), run_context)
    found = loss_of(run_context, objective(run_context, mu=-1e9), start=0)
    assert torch.equal(found.loss, loss_of(run_context, plain, start=0).loss)
    assert "rho" not in found.metrics


def test_the_loss_is_the_balance_of_both(run_context):  # noqa: F811
    """w L_DMD + (1 - w) C, and each row without a part, from the logged means of two equal videos."""
    plain = loss_of(run_context, long_tuning.Objective(long_tuning.Config(**KEYS), run_context)).loss.item()
    out = loss_of(run_context, objective(run_context, mu=0.1, s=1e-9))  # w = 1/2 for both
    gate, cont = out.metrics["gate"], out.metrics["continuity"]
    assert gate == pytest.approx(0.5)
    assert cont > 0
    assert out.loss.item() == pytest.approx(0.5 * plain + 0.5 * cont, rel=1e-5)
    whole, half = (
        gradients(run_context, loss_of(run_context, objective(run_context, mu=0.1, s=1e-9, **keys)).loss)
        for keys in ({}, {"continuity": False})
    )
    assert any(not torch.allclose(a, b) for a, b in zip(whole, half, strict=True))  # C has a gradient of its own
    for keys, expected in (
        ({"continuity": False}, 0.5 * plain),
        ({"trust": False}, plain + 0.5 * cont),
        ({"cont_weight": 3.0}, 0.5 * plain + 1.5 * cont),
    ):
        found = loss_of(run_context, objective(run_context, mu=0.1, s=1e-9, **keys)).loss.item()
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_teacher_that_agrees_with_the_student_is_trusted(run_context, monkeypatch):  # noqa: F811
    """Its x0 is the student's chunk: equal deltas, rho 0."""
    method = objective(run_context)
    monkeypatch.setattr(method, "teacher_x0", lambda long, chunk, sigma: chunk.window_BFCHW.detach())
    out = loss_of(run_context, method)
    assert out.metrics["rho"] == pytest.approx(0.0, abs=1e-6)
    assert out.metrics["gate"] == pytest.approx(0.880797, abs=1e-5)


def test_features_have_length_one_and_see_the_new_frames(run_context):  # noqa: F811
    long, method = later(run_context), objective(run_context)
    chunk = long.next_chunk(3, gradient=False)
    given = batch(long)
    features = method.phi(chunk, chunk.window_BFCHW, given)
    assert features.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    seen = []
    run_context.features = lambda name: lambda frames: seen.append(frames) or frames.flatten(1)
    by_pixels = objective(run_context, phi="codec")
    by_pixels.run_context.decoder = long.backbone.decoder
    by_pixels.phi(chunk, chunk.window_BFCHW, given)
    assert torch.equal(seen[0], chunk.window_BFCHW[:, 2:])


def test_the_gates_level_is_fixed_and_its_noise_belongs_to_the_frames(run_context):  # noqa: F811
    """The same chunk has the same rho whatever the step draws; without a level of its own it has not."""
    for level, same in ((0.5, True), (None, False)):
        method, found = objective(run_context, gate_sigma=level), []
        for seeds in ([1, 2], [8, 9]):
            given = batch(later(run_context), shared=5)
            given.seeds[:] = seeds
            found.append(method.loss("student", given).metrics["rho"])
        assert (found[0] == found[1]) == same


def test_the_threshold_is_set_from_chunks_without_a_switch_and_then_frozen(run_context):  # noqa: F811
    method = objective(run_context, mu=None, s=None, warmup=2)
    plain = loss_of(run_context, long_tuning.Objective(long_tuning.Config(**KEYS), run_context)).loss
    out = loss_of(run_context, method, switch=6)  # the switch is at this chunk: not taken in
    assert method.after_step(0) == {}
    assert not method.seen
    out = loss_of(run_context, method)
    assert torch.equal(out.loss, plain)  # the warm-up trusts
    assert out.metrics["gate"] == 1.0
    resumed = objective(run_context, mu=None, s=None, warmup=2)
    resumed.load_state(method.state())
    rho = method._new[0].clone()
    told = method.after_step(1)
    mu, s = delta.calibrated(rho)
    assert told == pytest.approx({"gate/mu": mu, "gate/s": s})
    loss_of(run_context, method)
    assert method.after_step(2) == told
    again = objective(run_context, mu=None, s=None, warmup=2)
    again.load_state(method.state())
    assert again.threshold == method.threshold
    assert resumed.updates == 1


def test_a_step_of_the_critic_alone_says_nothing(run_context):  # noqa: F811
    method = objective(run_context, mu=None, s=None, warmup=1)
    method.loss("critic", batch(sequence(run_context)))
    assert method.after_step(0) == {}
    assert method.updates == 0


@pytest.mark.parametrize(
    ("keys", "says"),
    [({"s": None}, "s: missing, give it beside mu"), ({"trust": False, "continuity": False}, "trust: found false")],
)
def test_halves_and_neither_are_refused(keys, says):
    with pytest.raises(ValueError, match=says):
        delta.Config(**KEYS, **({"phi": "teacher", "mu": 0.5, "s": 4.0} | keys))

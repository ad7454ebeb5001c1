"""DPO for flow models (TeleBoost Eq. 6, 10 to 13): hand-worked values, limit cases, and one gradient three ways."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models import lora
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.dpo import Config, Objective, annealed, branch_weight, dpo_loss, margin
from astro_cli.spec import PAIR_KINDS
from astro_cli.training.memory import SavedTensors
from tests.tiny_policy import tiny_policy

SHAPE, GRADIENTS = (2, 4, 4), ("joint", "decoupled", "decoupled_recompute")


def run_context(*, moved: bool = True, bidirectional: bool = True, layers: int = 2) -> RunContext:
    """A tiny policy beside its bare base; `moved`: its adapter is not zero."""
    roles = tiny_policy(layers)
    roles.add_adapter("base", "student", None)
    if not moved:
        lora.blend(roles.modules["student"], "default", "ref", 0.0)
    return RunContext(
        roles=roles,
        steps=warp_timesteps((1000, 500), 4.0),
        shift=4.0,
        frames=4,
        block=2,
        latent_shape=SHAPE,
        cache=CacheSpec(),
        encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
        bidirectional=bidirectional,
    )


def pairs(size: int = 3, frames: int = 4) -> Batch:
    rng = torch.Generator().manual_seed(5)
    return Batch(
        seeds=list(range(size)),
        prompts=["p"] * size,
        text_BMD=torch.randn(size, 4, 5, generator=rng),
        latents_BFCHW=torch.randn(size, frames, *SHAPE, generator=rng),
        rejected_BFCHW=torch.randn(size, frames, *SHAPE, generator=rng),
        pair_kind_B=torch.arange(size) % 3,
    )


def step(
    here: RunContext, batch: Batch, **keys: object
) -> tuple[float, dict[str, torch.Tensor], dict[str, float], int]:
    """Loss, gradients, metrics and the most bytes saved for backward, as the trainer computes them."""
    objective, student = Objective(Config(**({"beta": 2.0} | keys)), here), here.roles.modules["student"]
    student.zero_grad()
    total, metrics, saved = 0.0, dict[str, float](), SavedTensors()
    losses = objective.loss("student", batch)
    while True:
        with saved.counting(student.parameters()):
            out: LossOutput | None = next(losses, None)
        if out is None:
            break
        out.loss.backward()
        total, metrics = total + out.loss.item(), metrics | out.metrics
        del out
    grads = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    return total, grads, metrics, saved.peak


def test_the_loss_by_hand():
    # e_w .30, e_l .50, ref .40, .45: A = -((.30 - .40) - (.50 - .45)) = .15; -log sigmoid(2 x .15) = .554355
    a = margin(*(torch.tensor([value]) for value in (0.30, 0.50, 0.40, 0.45)))
    assert a.item() == pytest.approx(0.15)
    assert dpo_loss(a, 2.0).item() == pytest.approx(0.554355, abs=1e-6)
    # eta = 2 sigmoid(-.3) = 2 x .425557
    assert branch_weight(a, 2.0).item() == pytest.approx(0.851115, abs=1e-6)


def test_eta_is_the_losss_slope():
    a = torch.tensor([0.15, -2.0, 0.0], requires_grad=True)
    dpo_loss(a, 3.0).sum().backward()
    assert a.grad is not None
    torch.testing.assert_close(-a.grad, branch_weight(a, 3.0))


def test_beta_falls_from_its_start_to_its_share():
    # 100 -> 70 along a half cosine: in the middle 85
    assert [round(annealed(100.0, 0.7, p), 6) for p in (0.0, 0.5, 1.0)] == [100.0, 85.0, 70.0]
    assert {annealed(100.0, 1.0, p) for p in (0.0, 0.3, 1.0)} == {100.0}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("bidirectional", [True, False], ids=["whole clips", "student"])
def test_at_the_reference_the_loss_is_log_two(gradient, bidirectional):
    here = run_context(moved=False, bidirectional=bidirectional)
    loss, grads, metrics, _ = step(here, pairs(), gradient=gradient)
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["margin"] == pytest.approx(0.0, abs=1e-6)
    assert any(grad.abs().max() > 0 for grad in grads.values())


def test_exchanged_clips_turn_the_gradient_round_at_the_reference():
    here, batch = run_context(moved=False), pairs()
    exchanged = replace(batch, latents_BFCHW=batch.rejected_BFCHW, rejected_BFCHW=batch.latents_BFCHW)
    one, other = (step(here, each)[1] for each in (batch, exchanged))
    for name, grad in one.items():
        torch.testing.assert_close(grad, -other[name], atol=1e-6, rtol=1e-4)


def test_gradients_reach_adapters_only():
    _, grads, _, _ = step(run_context(), pairs())
    assert grads
    assert all(".lora_" in name and ".default." in name for name in grads)


@pytest.mark.parametrize("beta", [50.0, 500.0])
@pytest.mark.parametrize("sft_weight", [0.0, 0.3])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["whole clips", "student"])
def test_one_gradient_three_ways(bidirectional, sft_weight, beta):
    """Relative difference of all gradients up to 1e-5 in float32, and the same loss."""
    here, batch = run_context(bidirectional=bidirectional), pairs()
    joint, *others = (step(here, batch, gradient=each, beta=beta, sft_weight=sft_weight) for each in GRADIENTS)
    norm = torch.cat([grad.flatten() for grad in joint[1].values()]).norm()
    assert norm > 0
    for other in others:
        assert other[0] == pytest.approx(joint[0], rel=1e-6, abs=1e-6)
        gap = torch.cat([(grad - other[1][name]).flatten() for name, grad in joint[1].items()]).norm()
        assert (gap / norm).item() <= 1e-5


def test_decoupling_with_recomputation_holds_one_graph():
    """Bytes saved for backward: at most .65 of the joint gradient's. Two graphs with two backwards save as much."""
    here, batch = run_context(), pairs()
    joint, decoupled, recompute = (step(here, batch, gradient=each)[3] for each in GRADIENTS)
    assert recompute <= 0.65 * joint
    assert decoupled == pytest.approx(joint, rel=0.01)


def test_both_clips_of_a_pair_have_the_same_noise():
    """A pair of twice the same clip has no margin, whatever the policy is."""
    batch = pairs()
    same = replace(batch, rejected_BFCHW=batch.latents_BFCHW)
    loss, grads, metrics, _ = step(run_context(), same)
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["margin"] == 0
    assert max(grad.abs().max().item() for grad in grads.values()) < 1e-6


def test_a_step_along_the_gradient_raises_the_margin():
    here, batch = run_context(moved=False), pairs()
    _, grads, before, _ = step(here, batch)
    with torch.no_grad():
        for name, p in here.roles.modules["student"].named_parameters():
            if name in grads:
                p.sub_(grads[name] * 0.5)
    after = step(here, batch)[2]
    assert after["margin"] > before["margin"] + 1e-4


def test_noise_levels_keep_their_range():
    batch = pairs(size=64)
    for bidirectional, levels in ((True, 1), (False, 2)):
        objective = Objective(Config(beta=1, sigma_min=0.7, sigma_max=0.9), run_context(bidirectional=bidirectional))
        sigma_BF = objective._sigma(batch, 4)
        assert sigma_BF.min() >= 0.7 - 1e-6
        assert sigma_BF.max() <= 0.9 + 1e-6
        assert sigma_BF.max() - sigma_BF.min() > 0.15
        assert max(len(row.unique()) for row in sigma_BF) == levels


def test_margins_are_logged_by_kind_and_those_of_validation_pairs():
    here, batch = run_context(), pairs()
    objective = Objective(Config(beta=2.0, validation=1, validation_every=2), here)
    objective.prepare(lambda use, size: replace(pairs(), seeds=[7, 8, 9]))
    losses = list(objective.loss("student", batch))
    whole = losses[0].metrics["margin"]
    metrics = objective.after_step(0)
    kinds = PAIR_KINDS[:3]
    assert {f"margin/{kind}" for kind in kinds} | {f"validation/margin/{kind}" for kind in kinds} <= metrics.keys()
    assert sum(metrics[f"margin/{kind}"] for kind in kinds) / 3 == pytest.approx(whole, abs=1e-6)
    assert all(metrics[f"validation/accuracy/{kind}"] in (0.0, 1.0) for kind in kinds)
    again = Objective(Config(beta=2.0, validation=1, validation_every=2), here)
    again.prepare(lambda use, size: replace(pairs(), seeds=[7, 8, 9]))
    list(again.loss("student", batch))
    assert again.after_step(2)["validation/margin/reverse"] == metrics["validation/margin/reverse"]  # the same noise
    assert "validation/margin/reverse" not in again.after_step(3)


def test_a_warning_where_both_errors_rise():
    here, objective = run_context(), Objective(Config(beta=2.0), run_context())
    for rises, warns in (((0.1, 0.2), True), ((-0.1, 0.2), False), ((0.1, -0.2), False), ((0.001, 0.001), False)):
        objective.rises.zero_()
        objective._watch(pairs(), torch.zeros(3), *(torch.full((3,), 1.0 + rise) for rise in rises),
                         torch.ones(3), torch.ones(3))  # fmt: skip
        objective.after_step(1)
        assert bool(objective.warning) == warns, rises
    assert "both errors rise" not in objective.warning
    restored = Objective(Config(beta=2.0), here)
    restored.load_state(objective.state())
    assert torch.equal(restored.rises, objective.rises)


def test_a_range_of_noise_levels_that_is_none_is_refused():
    with pytest.raises(ValidationError, match=r"sigma_min: found 0\.9, expected less than sigma_max \(0\.5\)"):
        Config(beta=1.0, sigma_min=0.9, sigma_max=0.5)

"""Fine-tuning with weights of structure (TeleBoost section 2.3): hand-worked weights and scores, the limit of equal
weights, and what the weights depend on.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.objectives import flow_matching
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.objectives.sft import Config, Objective, structure_weights
from astro_cli.rewards.structure import BACKGROUND_SCALE, StructuralStability, overlap, residual
from astro_cli.shapes.grammar import parse
from astro_cli.spec import STRUCTURE
from astro_cli.training.sources import render_scenes
from tests.tiny_policy import tiny_policy

SHAPE = (2, 4, 4)
PLAIN = "a large red circle moves right slowly over a gray striped background"


def run_context(stability: list[float] | None = None) -> RunContext:
    """A tiny bidirectional policy; its clips are decoded as they are, and their first latent says how stable they are,
    unless `stability` does.
    """

    def score(frames: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return frames[:, 0, 0, 0, 0].sigmoid() if stability is None else torch.tensor(stability)[: len(prompts)]

    return RunContext(
        roles=tiny_policy(2),
        steps=warp_timesteps((1000, 500), 4.0),
        shift=4.0,
        frames=4,
        block=4,
        latent_shape=SHAPE,
        cache=CacheSpec(),
        encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
        decoder=lambda: StreamingDecoder(lambda latents, features: (latents, features), []),
        reward=lambda key: {STRUCTURE: score}[key],
        bidirectional=True,
    )


def clips(size: int = 4) -> Batch:
    rng = torch.Generator().manual_seed(5)
    text, x0 = torch.randn(size, 4, 5, generator=rng), torch.randn(size, 4, *SHAPE, generator=rng)
    return Batch(seeds=list(range(size)), prompts=["p"] * size, text_BMD=text, latents_BFCHW=x0)


def gradients(here: RunContext, objective: flow_matching.Objective, batch: Batch) -> dict[str, torch.Tensor]:
    student = here.roles.modules["student"]
    student.zero_grad()
    objective.loss("student", batch).loss.backward()
    return {name: p.grad.clone() for name, p in here.roles.trainable("student") if p.grad is not None}


def test_weights_by_hand():
    # s = .5, 1, 0, .5 and lambda 2: 1 + 2 (1 - s) = 2, 1, 3, 2, of mean 2
    stability = torch.tensor([0.5, 1.0, 0.0, 0.5])
    assert structure_weights(stability, stability.mean(), 2.0).tolist() == [1.0, 0.5, 1.5, 1.0]
    assert structure_weights(stability, stability.mean(), 0.0).tolist() == [1.0] * 4
    equal = torch.full((7,), 0.3)
    assert structure_weights(equal, equal.double().mean(), 0.7).tolist() == [1.0] * 7


@pytest.mark.parametrize("structure", ["prediction", "data"])
def test_weights_have_mean_one_over_the_batch_however_it_is_split(structure):
    batch, here = clips(), run_context()
    objective = Objective(Config(structure=structure), here)
    whole, parts = (objective.weigh("student", batch, size).weight_B for size in (4, 1))
    assert whole is not None
    assert parts is not None
    assert whole.mean().item() == pytest.approx(1, abs=1e-6)
    assert whole.std().item() > 0.01
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)
    logged = objective.after_step(0)
    assert logged["structure/weight_least"] == pytest.approx(whole.min().item())
    assert logged["structure/weight_most"] == pytest.approx(whole.max().item())


def test_what_is_judged_is_the_prediction_or_the_clip():
    """The clip's weights are the same whatever the model; the prediction's change with it."""
    batch, here = clips(), run_context()
    x0 = batch.latents_BFCHW
    assert x0 is not None
    stability = x0[:, 0, 0, 0, 0].sigmoid()
    data, predicted = (Objective(Config(structure=name), here) for name in ("data", "prediction"))
    expected = structure_weights(stability, stability.double().mean(), 1.0)
    before = predicted.weigh("student", batch, 4).weight_B
    assert before is not None
    torch.testing.assert_close(data.weigh("student", batch, 4).weight_B, expected)
    with torch.no_grad():
        for parameter in here.roles.modules["student"].parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(data.weigh("student", batch, 4).weight_B, expected)
    after = predicted.weigh("student", batch, 4).weight_B
    assert after is not None
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("case", ["none", "lambda 0", "equal clips"])
def test_uniform_weights_are_flow_matching_bit_for_bit(case):
    batch, here = clips(), run_context([0.4] * 4 if case == "equal clips" else None)
    config = {
        "none": Config(),
        "lambda 0": Config(structure="prediction", strength=0.0),
        "equal clips": Config(structure="prediction"),
    }
    objective, plain = Objective(config[case], here), flow_matching.Objective(flow_matching.Config(), here)
    weighed = objective.weigh("student", batch, 2)
    assert (weighed.weight_B is None) == (case == "none")
    assert torch.equal(objective.loss("student", weighed).loss, plain.loss("student", batch).loss)
    theirs = gradients(here, plain, batch)
    assert theirs
    for name, gradient in gradients(here, objective, weighed).items():
        assert torch.equal(gradient, theirs[name]), name


def test_the_loss_is_the_weighted_mean_of_the_clips_losses():
    batch, here = clips(), run_context()
    objective = Objective(Config(structure="data"), here)
    weighed = objective.weigh("student", batch, 4)
    assert weighed.weight_B is not None
    each = torch.stack([objective.loss("student", replace(batch.rows(row, row + 1))).loss for row in range(4)])
    out = objective.loss("student", weighed)
    assert out.loss.item() == pytest.approx((each * weighed.weight_B).mean().item(), rel=1e-5)
    assert out.metrics["flow_matching_loss"] == pytest.approx(each.mean().item(), rel=1e-5)


def test_the_overlap_of_mattes_by_hand():
    # two frames, 1 1 0 0 and 1 0 1 0: their mean is 1 .5 .5 0; min 1 .5 0 0 = 1.5, max 1 1 .5 0 = 2.5: IoU .6 for both
    mattes = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]], [[1.0, 0.0, 1.0, 0.0]]]])
    assert overlap(mattes).item() == pytest.approx(0.6)
    assert overlap(mattes[:, :1].expand(-1, 3, -1, -1)).item() == 1.0


def test_the_residual_of_a_background_by_hand():
    # frames of gray .4 and .6 around their mean .5: RMS .1; where the second is not seen, nothing is left
    gray = torch.full((1, 2, 8, 8), 0.4)
    gray[:, 1] = 0.6
    weight = torch.ones(1, 2, 8, 8)
    assert residual(gray, weight).item() == pytest.approx(0.1, abs=1e-6)
    weight[:, 1] = 0
    assert residual(gray, weight).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("camera", ["", " while the camera pans left", " while the camera pans down"])
def test_rendered_clips_are_stable_and_broken_ones_are_not(camera):
    good = render_scenes([parse(PLAIN + camera)], [3], 9)
    score = StructuralStability().score
    assert score(good, [PLAIN]).item() > 0.9
    vanishing = good.clone()
    vanishing[:, 5:] = vanishing[:, 5:].mean(2, keepdim=True)  # the object loses its colour
    collapsing = good.clone()
    collapsing[:, ::2] = (collapsing[:, ::2] * 0.8).clamp(0, 1)
    swelling = render_scenes([parse(PLAIN.replace("large", "small") + camera)], [3], 9)
    swelling[:, 5:] = good[:, 5:]
    for broken in (vanishing, collapsing, swelling):
        assert score(broken, [PLAIN]).item() < 0.8


def test_a_background_that_leaves_the_pan_is_seen():
    """A striped background that jumps by half a period halfway is .1 from its mean, but at its soft edges."""
    still = render_scenes([parse("a small red circle stays still over a gray striped background")], [3], 8)
    assert StructuralStability().score(still, [""]).item() > 0.95
    jumped = torch.cat((still[:, :4], still[:, 4:].roll(4, -1)), 1)
    fit = StructuralStability().score(jumped, [""]).item()
    assert math.exp(-0.1 / BACKGROUND_SCALE) < fit < math.exp(-0.07 / BACKGROUND_SCALE)

"""Learning-rate schedule, moving average and optimiser state, by hand."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from astro_cli.spec import EmaSpec, OptimSpec
from astro_cli.training.muon import Muon
from astro_cli.training.optim import FINAL_LR, Ema, RoleOptimizer, learning_rate


def test_schedule_by_hand():
    spec = OptimSpec(lr=1.0, warmup=4, decay="cosine")
    # warm-up 1/4 .. 4/4; half-way through the remaining 10 steps the cosine is at the middle of 1 and FINAL_LR
    assert [learning_rate(spec, step, 14) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(spec, 9, 14) == pytest.approx((1 + FINAL_LR) / 2)
    assert learning_rate(spec, 14, 14) == pytest.approx(FINAL_LR)
    assert learning_rate(OptimSpec(lr=0.3), 1000, 10) == 0.3


def test_moving_average_by_hand():
    # start 1, parameter then 3: .9 * 1 + .1 * 3 = 1.2; before `start` the average is the parameter itself
    p = nn.Parameter(torch.tensor([1.0]))
    ema = Ema(EmaSpec(decay=0.9, start=1), [("p", p)])
    p.data.fill_(2.0)
    ema.update(0)
    assert ema.shadow["p"].item() == 2.0
    p.data.fill_(3.0)
    ema.update(1)
    assert ema.shadow["p"].item() == pytest.approx(0.9 * 2 + 0.1 * 3)
    ema.copy_to_parameters()
    assert p.item() == pytest.approx(2.1)


def test_moving_average_with_the_released_ramp_by_hand():
    # after update n it keeps min((1 + n) / (10 + n), .9): 2/11, 3/12, and .9 from n = 80 on (81 / 90)
    p = nn.Parameter(torch.tensor([0.0]))
    ema = Ema(EmaSpec(decay=0.9, ramp=True), [("p", p)])
    p.data.fill_(1.0)
    ema.update(0)
    assert ema.shadow["p"].item() == pytest.approx(1 - 2 / 11)
    ema.update(1)
    assert ema.shadow["p"].item() == pytest.approx(1 - 2 / 11 * 3 / 12)
    for step, keep in ((78, 80 / 89), (79, 0.9), (500, 0.9)):
        ema.shadow["p"].zero_()
        ema.update(step)
        assert ema.shadow["p"].item() == pytest.approx(1 - keep)


def named() -> list[tuple[str, nn.Parameter]]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"blocks.0.w": (4, 6), "blocks.0.scale_shift_table": (1, 6, 4), "head.w": (3, 4), "norm": (4,)}
    return [(name, nn.Parameter(torch.randn(shape, generator=rng))) for name, shape in shapes.items()]


@pytest.mark.parametrize(
    "own", [{}, {"kind": "muon", "matrix_lr": 0.02}, {"kind": "rmsprop", "alpha": 0.9}], ids=["adam", "muon", "rmsprop"]
)
def test_a_saved_optimiser_continues_with_the_same_bits(own):
    spec = OptimSpec(lr=0.01, weight_decay=0.1, **own)

    def advance(optimizer: RoleOptimizer, step: int) -> None:
        for index, p in enumerate(optimizer.parameters):
            p.grad = torch.full_like(p, 0.1 * (step + 1) * (index + 1)) + p.detach()
        optimizer.step(spec.lr)

    whole = RoleOptimizer(spec, named())
    for step in range(4):
        advance(whole, step)
    first = RoleOptimizer(spec, named())
    for step in range(2):
        advance(first, step)
    second_parameters = [
        (name, nn.Parameter(p.detach().clone())) for (name, _), p in zip(named(), first.parameters, strict=True)
    ]
    second = RoleOptimizer(spec, second_parameters)
    second.load(first.tensors())
    for step in range(2, 4):
        advance(second, step)
    for a, b in zip(whole.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)


def test_vectors_and_tables_are_not_decayed_and_muon_takes_only_block_matrices():
    optimizer = RoleOptimizer(OptimSpec(kind="muon", lr=0.01, matrix_lr=0.02, weight_decay=0.5), named())
    adamw, muon = optimizer.parts
    assert [[tuple(p.shape) for p in group["params"]] for group in adamw.param_groups] == [[(3, 4)], [(1, 6, 4), (4,)]]
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.5, 0.0]
    assert [tuple(p.shape) for p in muon.param_groups[0]["params"]] == [(4, 6)]


def test_gradients_are_clipped_to_the_norm():
    p = nn.Parameter(torch.zeros(4, 4))
    optimizer = RoleOptimizer(OptimSpec(lr=0.1, clip=1.0), [("head", p)])
    p.grad = torch.full((4, 4), 10.0)
    assert optimizer.step(0.1) == pytest.approx(40.0)  # the norm before clipping, sqrt(16) * 10


def test_rmsprop_by_hand():
    # mean square .9 * 0 + .1 * 4 = .4; step 1 * 2 / (sqrt(.4) + 0) = 3.1623 (eps 1e-8)
    p = nn.Parameter(torch.zeros(1))
    optimizer = RoleOptimizer(OptimSpec(kind="rmsprop", lr=1.0, alpha=0.9, clip=100.0), [("head", p)])
    p.grad = torch.tensor([2.0])
    optimizer.step(1.0)
    assert p.item() == pytest.approx(-2 / 0.4**0.5, rel=1e-6)
    # mean square .9 * .4 + .1 * 4 = .76
    p.grad = torch.tensor([2.0])
    optimizer.step(1.0)
    assert p.item() == pytest.approx(-2 / 0.4**0.5 - 2 / 0.76**0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "rmsprop"}, "alpha: missing"),
        ({"kind": "muon"}, "matrix_lr: missing"),
        ({"matrix_lr": 0.02}, "matrix_lr: found 0.02 with kind 'adam', it is a key of kind = 'muon'"),
        ({"kind": "muon", "matrix_lr": 0.02, "alpha": 0.9}, "alpha: found 0.9 with kind 'muon'"),
    ],
)
def test_keys_of_another_optimiser_are_refused(keys, says):
    with pytest.raises(ValidationError, match=says):
        OptimSpec(lr=0.1, **keys)


def test_decay_alone_shrinks_matrices_and_leaves_the_tables():
    # no gradient but weight decay: w (1 - lr wd) = w (1 - .1 * .5)
    parameters = named()
    before = {name: p.detach().clone() for name, p in parameters}
    optimizer = RoleOptimizer(OptimSpec(lr=0.1, weight_decay=0.5), parameters)
    for _, p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    for name, p in parameters:
        share = 0.95 if name in ("blocks.0.w", "head.w") else 1.0
        assert torch.allclose(p, share * before[name], atol=1e-7), name


def test_the_state_of_other_parameters_is_refused():
    saved = RoleOptimizer(OptimSpec(lr=0.1), named())
    for p in saved.parameters:
        p.grad = torch.ones_like(p)
    saved.step(0.1)
    other = RoleOptimizer(OptimSpec(lr=0.1), named()[::-1])
    with pytest.raises(ValueError, match="parameter 0 of optimiser 0 has another shape"):
        other.load(saved.tensors())


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (12, 12)])
def test_muon_in_float32_is_torchs_up_to_its_rounding(shape):
    rng = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=rng)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    pair = (Muon([ours], lr=0.02, weight_decay=0.1), torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1))
    for _ in range(3):
        gradient = torch.randn(shape, generator=rng)
        for parameter, optimizer in zip((ours, theirs), pair, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved  # torch's iteration runs in bfloat16


def test_muon_takes_a_filter_for_a_matrix_of_one_row_per_output():
    rng = torch.Generator().manual_seed(2)
    start, gradient = torch.randn(6, 3, 3, 3, generator=rng), torch.randn(6, 3, 3, 3, generator=rng)
    filters, matrix = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    filters.grad, matrix.grad = gradient.clone(), gradient.flatten(1).clone()
    for parameter in (filters, matrix):
        Muon([parameter], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(filters.flatten(1), matrix)
    assert not torch.equal(filters, start)


def test_codec_filters_and_block_matrices_get_muon_and_nothing_else_does():
    spec = OptimSpec(kind="muon", lr=1e-3, matrix_lr=0.02, matrix_dtype="float32")
    muon = [("blocks.0.w", (4, 6)), ("encoder.1.weight", (4, 3, 3, 3))]
    named = [*muon, ("head.w", (3, 4)), ("patch_embedding.weight", (4, 2, 1, 2, 2)), ("norm", (4,))]
    optimizer = RoleOptimizer(spec, [(name, nn.Parameter(torch.zeros(shape))) for name, shape in named])
    assert [[tuple(p.shape) for group in part.param_groups for p in group["params"]] for part in optimizer.parts] == [
        [(3, 4), (4, 2, 1, 2, 2), (4,)],
        [(4, 6), (4, 3, 3, 3)],
    ]

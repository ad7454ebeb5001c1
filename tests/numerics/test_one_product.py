"""Fewer operations, the same numbers: merged adapters, GELU in the linear layer, rotation as one complex product."""

import pytest
import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import nn
from torch.nn import functional

from astro_cli.models import lora
from astro_cli.models.lora_layer import MergingLinear
from astro_cli.models.wan.linear import linear_gelu
from astro_cli.models.wan.rope import rope_table, rotate


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """One layer under a name that takes adapters."""

    def __init__(self, into: int = 12, out: int = 16) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Module()])
        self.blocks[0].attn1 = nn.Module()
        self.blocks[0].attn1.to_q = nn.Linear(into, out)


@pytest.fixture
def layer() -> tuple[Block, MergingLinear]:
    """Adapters "default" and "old" of rank 4 and scale 2, both moved."""
    torch.manual_seed(0)
    block = Block().eval()
    lora.add_adapters(block, 4, 8, 0.0, ("default", "old"), torch.Generator().manual_seed(1))
    for seed, name in enumerate(("default", "old")):
        for value in lora.adapter_state(block, name).values():
            value.data += random(*value.shape, seed=seed)
    found = lora.layers(block)[0]
    assert isinstance(found, MergingLinear)
    return block, found


def test_a_merged_layer_is_what_peft_computes_and_gradients_reach_its_adapter(layer):
    block, merging = layer
    x, weight = random(3, 5, 12, seed=2), random(3, 5, 16, seed=3)
    gradients = []
    for forward in (merging, lambda x: PeftLinear.forward(merging, x)):
        y = forward(x)
        (y * weight).sum().backward()
        grads = {name: p.grad.clone() for name, p in block.named_parameters() if p.grad is not None}
        assert all(".default." in name for name in grads)
        gradients.append((y.detach(), grads))
        block.zero_grad()
    torch.testing.assert_close(gradients[0][0], gradients[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], atol=1e-4, rtol=1e-4)
    assert merging.weight_now() is not None  # rank 4 of a 12 x 16 layer: 3 x 4 x 28 >= 192


def test_a_narrow_adapter_of_a_wide_layer_acts_beside_it_where_gradients_are_wanted():
    block = Block(64, 64).eval()
    lora.add_adapters(block, 2, 2, 0.0, ("default",), torch.Generator().manual_seed(1))
    merging = lora.layers(block)[0]
    assert isinstance(merging, MergingLinear)
    assert merging.weight_now() is None  # 3 x 2 x 128 < 64 x 64
    with torch.no_grad():
        assert merging.weight_now() is not None


@torch.no_grad()
def test_sums_are_kept_for_a_while_only_and_follow_the_adapter(layer):
    block, merging = layer
    x = random(2, 12, seed=2)
    with lora.using(block, "old"):
        assert merging.kept is not None
        before = merging(x)
    assert merging.kept is None
    for value in lora.adapter_state(block, "old").values():
        value.data.mul_(2)  # a version counter would not see it
    with lora.using(block, "old"):
        assert (merging(x) - before).abs().max() > 0.1
    with torch.enable_grad(), lora.using(block, "old"):
        assert merging.kept is None
    with torch.autocast("cpu", torch.bfloat16), lora.using(block, "old"):
        assert merging.kept is None
    block.to(torch.bfloat16)
    assert not merging.merges()  # a sum in bfloat16 would lose the adapter's small changes


@torch.no_grad()
def test_gelu_in_the_linear_layer_is_gelu_behind_it(layer):
    plain = nn.Linear(12, 40)
    x = 4 * random(2, 3, 12, seed=2)
    expected = functional.gelu(plain(x), approximate="tanh")
    torch.testing.assert_close(linear_gelu(plain, x), expected, atol=2e-6, rtol=0)
    block, merging = layer
    for name in ("default", "old", None):
        with lora.using(block, name):
            expected = functional.gelu(PeftLinear.forward(merging, x), approximate="tanh")
            torch.testing.assert_close(linear_gelu(merging, x), expected, atol=1e-5, rtol=1e-5)


def test_gelu_with_gradients_is_the_plain_one():
    plain, x = nn.Linear(12, 40), random(2, 12).requires_grad_()
    y = linear_gelu(plain, x)
    assert torch.equal(y, functional.gelu(plain(x), approximate="tanh"))
    y.sum().backward()
    assert x.grad is not None


def test_the_rotation_is_two_products_and_a_sum_of_each_pair():
    table = rope_table(range(2, 5), 2, 3, 12, torch.device("cpu"))
    x = random(2, 4, 18, 12).requires_grad_()
    rotated = rotate(x, table)
    even, odd = x.detach()[..., 0::2], x.detach()[..., 1::2]
    torch.testing.assert_close(rotated[..., 0::2], even * table.cos - odd * table.sin, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotated[..., 1::2], even * table.sin + odd * table.cos, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(rotated, x, rotated.detach())
    torch.testing.assert_close(gradient, x.detach(), atol=1e-5, rtol=0)  # a rotation's transpose is its inverse
    assert rotate(x.bfloat16(), table).dtype == torch.bfloat16

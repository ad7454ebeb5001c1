"""Attention to a shared history, read once, and to a clip's own keys is attention to both side by side."""

import math

import pytest
import torch
from torch.nn import functional

from astro_cli.models.wan.shared_attention import attend_shared, can_share


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize(("histories", "group"), [(1, 4), (2, 3), (3, 1)])
def test_it_is_attention_to_the_joined_keys(histories, group):
    clips = histories * group
    q, own = random(clips, 2, 5, 8, seed=1), (random(clips, 2, 4, 8, seed=2), random(clips, 2, 4, 8, seed=3))
    shared = 3 * random(histories, 2, 7, 8, seed=4), random(histories, 2, 7, 8, seed=5)
    k, v = (torch.cat((one.repeat_interleave(group, 0), other), 2) for one, other in zip(shared, own, strict=True))
    torch.testing.assert_close(
        attend_shared(q, shared, own), functional.scaled_dot_product_attention(q, k, v), atol=1e-6, rtol=1e-5
    )


@torch.no_grad()
def test_two_keys_by_hand():
    """Scores 0 (shared, value 1) and log 3 (own, value 5): (1 + 3 5) / 4 = 4."""
    q, zero = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    own = torch.tensor([math.log(3) * math.sqrt(2), 0.0]).view(1, 1, 1, 2)
    out = attend_shared(q, (zero, torch.full((1, 1, 1, 2), 1.0)), (own, torch.full((1, 1, 1, 2), 5.0)))
    torch.testing.assert_close(out.flatten(), torch.tensor([4.0, 4.0]))


def test_gradients_and_half_precision_take_the_plain_way():
    assert not can_share(torch.zeros(1))
    with torch.no_grad():
        assert can_share(torch.zeros(1))
        assert not can_share(torch.zeros(1, dtype=torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            assert not can_share(torch.zeros(1))

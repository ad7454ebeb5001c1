"""Old and reference policy in one pass: each part of the batch gets what its adapter alone would give it, whatever the
context.
"""

import pytest
import torch

from astro_cli.cache.context import FrozenContext
from astro_cli.cache.kv import CacheSpec
from astro_cli.models import lora
from astro_cli.models.roles import Roles
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.grouped import ClipContext
from astro_cli.rollout.streaming import StreamSpec

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE, FRAMES = (2, 4, 4), 4


@pytest.fixture
def roles() -> Roles:
    """Three adapters that differ."""
    torch.manual_seed(0)
    network = CausalWan(TINY).eval()
    lora.add_adapters(network, 4, 8, 0.0, ("default", "old", "ref"), torch.Generator().manual_seed(1))
    for seed, name in enumerate(("default", "old", "ref")):
        for value in lora.adapter_state(network, name).values():
            value.data += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
    found = Roles()
    found.modules["student"] = network
    for name in ("old", "ref"):
        found.add_adapter(name, "student", name)
    return found


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["frozen", "clip", "clip without history", "full"])
def test_policies_side_by_side_equal_each_alone(roles, kind):
    """Two prompts with two clips each; the context is the old policy's, recorded once for both policies."""
    spec = StreamSpec(torch.tensor([1000.0, 500.0]), 2, SHAPE, CacheSpec(window=6, sink=2, relative=True))
    clean, text = random(4, FRAMES, *SHAPE, seed=1), random(2, 4, 5, seed=2).repeat_interleave(2, 0)
    history = random(2, 4 if kind != "clip without history" else 0, *SHAPE, seed=3)
    x_t, timestep = random(4, FRAMES, *SHAPE, seed=4), torch.tensor([[900.0, 900.0, 300.0, 300.0]]).repeat(4, 1)
    with torch.no_grad(), roles.use("old") as old:
        states = old.encode_text(text)
        if kind == "frozen":
            context = FrozenContext(old, states, clean, 2)
        else:
            context = ClipContext(
                old, states, history, clean, torch.tensor([0, 0, 1, 1]), spec, gradient=kind == "full"
            )
        alone = [context.velocity(old, x_t, timestep, states)]
    with torch.no_grad(), roles.use("ref") as reference:
        alone.append(context.velocity(reference, x_t, timestep, reference.encode_text(text)))
    with roles.together("old", "ref") as both:
        v = context.velocity(
            both, x_t.repeat(2, 1, 1, 1, 1), timestep.repeat(2, 1), both.encode_text(text.repeat(2, 1, 1))
        )
    assert not v.requires_grad
    assert (alone[0] - alone[1]).abs().max() > 1e-2  # the adapters differ
    for found, expected in zip(v.chunk(2), alone, strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_afterwards_the_trained_adapter_acts_on_all(roles):
    network = roles.modules["student"]
    x, timestep, text = random(2, 2, *SHAPE, seed=1), torch.full((2, 2), 500.0), random(2, 4, 5, seed=2)
    before = network(x, timestep, network.encode_text(text))
    with roles.together("old", "ref") as both:
        assert not torch.allclose(both(x, timestep, both.encode_text(text)), before, atol=1e-3)
    after = network(x, timestep, network.encode_text(text))
    assert torch.equal(before, after)
    assert after.requires_grad

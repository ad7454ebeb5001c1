"""The reference sees only the samples that a penalty weighs: they get what they get among all, whatever the context."""

from dataclasses import replace

import pytest
import torch

from astro_cli.cache.context import FrozenContext
from astro_cli.cache.kv import CacheSpec
from astro_cli.models import lora
from astro_cli.models.roles import Roles
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import Batch
from astro_cli.objectives.nft import Config, Objective
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
def test_selected_samples_get_what_they_get_among_all(roles, kind):
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
        v_old = context.velocity(old, x_t, timestep, states)
    rows = torch.tensor([3, 1])
    with torch.no_grad(), roles.use("ref") as reference:
        everyone = context.velocity(reference, x_t, timestep, reference.encode_text(text))
        past = context.select(rows)
        some = past.velocity(reference, x_t[rows], timestep[rows], reference.encode_text(text[rows]))
    assert (v_old - everyone).abs().max() > 1e-2  # the adapters differ
    torch.testing.assert_close(some, everyone[rows], atol=1e-6, rtol=0)


def test_the_penalty_of_selected_samples_is_that_of_all():
    """Weights (0, 3, 0, 1) of four samples that diverge by 1, 2, 3, 4: (3 2 + 1 4) / 4 = 2.5."""
    objective = Objective.__new__(Objective)
    batch = Batch(seeds=[1, 2, 3, 4], prompts=[""] * 4, risk_B=torch.tensor([0.0, 3.0, 0.0, 1.0]))
    divergence = torch.tensor([1.0, 2.0, 3.0, 4.0])
    objective.config = Config(kl="selective")
    rows = objective._penalised(batch)
    assert rows.tolist() == [1, 3]
    assert objective._penalty(divergence[rows], batch, rows) == 2.5
    nobody = replace(batch, risk_B=torch.zeros(4))
    rows = objective._penalised(nobody)
    assert len(rows) == 1
    assert objective._penalty(divergence[rows], nobody, rows) == 0
    objective.config = Config(kl="uniform")
    rows = objective._penalised(batch)
    assert objective._penalty(divergence[rows], batch, rows) == 2.5  # (1 + 2 + 3 + 4) / 4


def test_afterwards_the_trained_adapter_acts(roles):
    network = roles.modules["student"]
    x, timestep, text = random(2, 2, *SHAPE, seed=1), torch.full((2, 2), 500.0), random(2, 4, 5, seed=2)
    before = network(x, timestep, network.encode_text(text))
    with torch.no_grad(), roles.use("old") as old:
        assert not torch.allclose(old(x, timestep, old.encode_text(text)), before, atol=1e-3)
    after = network(x, timestep, network.encode_text(text))
    assert torch.equal(before, after)
    assert after.requires_grad

"""Adapters: off they are the base, merged they are the adapted network, the old policy moves by the moving average
alone.
"""

import pytest
import torch

from astro_cli.models import lora
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
NAMES = ("default", "old", "ref")


@pytest.fixture
def adapted() -> tuple[CausalWan, torch.Tensor]:
    torch.manual_seed(0)
    network = CausalWan(TINY).eval()
    before = forward(network)
    lora.add_adapters(network, 4, 8, 0.0, NAMES, torch.Generator().manual_seed(1))
    return network, before


@torch.no_grad()
def forward(network: CausalWan) -> torch.Tensor:
    rng = torch.Generator().manual_seed(2)
    text = network.encode_text(torch.randn(1, 4, 5, generator=rng))
    return network(torch.randn(1, 2, 2, 4, 4, generator=rng), torch.full((1, 2), 400.0), text)


def train(network: CausalWan) -> None:
    """Move the trained adapter as an optimiser would."""
    rng = torch.Generator().manual_seed(3)
    for value in lora.adapter_state(network, "default").values():
        value.data += 0.1 * torch.randn(value.shape, generator=rng)


def test_fresh_adapters_change_nothing(adapted):
    network, before = adapted
    for role in (*NAMES, None):
        with lora.using(network, role):
            assert torch.equal(forward(network), before)


def test_switched_off_after_training_is_the_base_bit_for_bit(adapted):
    network, before = adapted
    train(network)
    assert not torch.allclose(forward(network), before)
    with lora.using(network, None):
        assert torch.equal(forward(network), before)
    with lora.using(network, "old"):
        assert torch.equal(forward(network), before)


def test_only_the_trained_adapter_requires_gradients_whatever_acts(adapted):
    network, _ = adapted
    for role in (*NAMES, None):
        with lora.using(network, role):
            trained = {name for name, p in network.named_parameters() if p.requires_grad}
            assert trained
            assert all(".default." in name for name in trained)


def test_ten_linears_a_block_get_adapters(adapted):
    network, _ = adapted
    assert len(lora.layers(network)) == 2 * 10


def test_blend_by_hand(adapted):
    network, _ = adapted
    train(network)
    key = "blocks.0.attn1.to_q.lora_B.weight"
    new, old = (lora.adapter_state(network, name)[key].detach().clone() for name in ("default", "old"))
    lora.blend(network, "old", "default", 0.9)  # .9 old + .1 new
    torch.testing.assert_close(lora.adapter_state(network, "old")[key].detach(), 0.9 * old + 0.1 * new)


def test_merged_weights_give_the_adapted_network(adapted):
    network, _ = adapted
    train(network)
    plain = CausalWan(TINY).eval()
    plain.load_state_dict(lora.merged_state(network, "default"))
    torch.testing.assert_close(forward(plain), forward(network), atol=1e-5, rtol=1e-5)


def test_merging_into_a_bfloat16_base_keeps_changes_below_its_steps():
    torch.manual_seed(0)
    network = CausalWan(TINY).to(torch.bfloat16)
    key = "blocks.0.attn1.to_q"
    base = network.state_dict()[f"{key}.weight"].float()
    lora.add_adapters(network, 1, 1, 0.0, NAMES, torch.Generator().manual_seed(1))
    adapter = lora.adapter_state(network, "default")
    adapter[f"{key}.lora_A.weight"].data.fill_(1.0)
    adapter[f"{key}.lora_B.weight"].data.fill_(1e-5)  # scale 1: every weight + 1e-5; steps of bfloat16 at 0.1 are 5e-4
    merged = lora.merged_state(network, "default")
    torch.testing.assert_close(merged[f"{key}.weight"], base + 1e-5, atol=1e-8, rtol=0)
    assert {value.dtype for value in merged.values()} == {torch.float32}


def test_a_role_inside_a_role_is_itself_and_the_outer_one_acts_again(adapted):
    network, _ = adapted
    train(network)
    with torch.no_grad():
        tuned = forward(network)
        with lora.using(network, None):
            base = forward(network)
        with lora.using(network, lora.TRAINED):
            with lora.using(network, None):
                assert torch.equal(forward(network), base)
            torch.testing.assert_close(forward(network), tuned, rtol=0, atol=1e-5)
        with lora.using(network, None):
            with lora.using(network, lora.TRAINED):
                torch.testing.assert_close(forward(network), tuned, rtol=0, atol=1e-5)
            assert torch.equal(forward(network), base)
    assert not torch.equal(base, tuned)

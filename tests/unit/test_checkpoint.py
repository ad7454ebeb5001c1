"""Transformer checkpoints: every released layout gives the network that wrote it, with the moving average and in
the dtype that are asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from released_layouts import (
    CONFIG,
    LAYOUTS,
    forward,
    network,
    original,
    refusal,
    write_pickle,
)
from safetensors.torch import load_file

from astro_cli.models.checkpoint import into, load_transformer
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan

pytestmark = pytest.mark.usefixtures("nowhere")


GOLDEN = Path(__file__).parents[1] / "golden"


def shaped(checkpoint_of: CausalWan) -> CausalWan:
    """An untrained network of the same sizes, to be filled."""
    return network(99, checkpoint_of.config)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_released_layout_gives_the_network_that_wrote_it(layout, tmp_path):
    write, form, nesting, has_config = LAYOUTS[layout]
    wanted, other = network(1), network(2)
    path = write(tmp_path, wanted.state_dict(), other.state_dict())
    found = load_transformer(path, config=None if has_config else CONFIG)
    assert (found.format, found.nesting) == (form, nesting)
    assert found.config.model_dump(exclude={"text_len"}) == CONFIG.model_dump(exclude={"text_len"})
    filled = shaped(wanted)
    assert not torch.allclose(forward(filled), forward(wanted))
    into(filled, found)
    assert torch.equal(forward(filled), forward(wanted))
    assert found.parameters == sum(p.numel() for p in wanted.parameters())


def test_real_names_of_the_recordings(tmp_path):
    info = json.loads((GOLDEN / "self_forcing.json").read_text())["model"]
    config = WanConfig(
        dim=info["dim"],
        ffn_dim=info["ffn_dim"],
        num_heads=info["num_heads"],
        num_layers=info["num_layers"],
        in_channels=info["in_dim"],
        freq_dim=info["freq_dim"],
        text_dim=info["text_dim"],
        text_len=info["text_len"],
    )
    found = load_transformer(GOLDEN / "weights.safetensors", config=config)
    assert found.config == config
    torch.testing.assert_close(
        found.state["blocks.2.attn2.to_out.0.weight"],
        load_file(GOLDEN / "weights.safetensors")["blocks.2.cross_attn.o.weight"],
    )


@pytest.fixture
def both(tmp_path) -> tuple[Path, dict, dict]:
    plain, ema = network(1).state_dict(), network(2).state_dict()
    path = write_pickle(
        tmp_path / "both.pt", {"generator": original(plain, "model."), "generator_ema": original(ema, "model.")}
    )
    return path, plain, ema


def test_the_moving_average_is_taken_unless_refused(both):
    path, plain, ema = both
    key = "blocks.1.ffn.net.2.weight"
    for choice, state, nesting in (
        (None, ema, "generator_ema"),
        (True, ema, "generator_ema"),
        (False, plain, "generator"),
    ):
        found = load_transformer(path, config=CONFIG, ema=choice)
        assert found.nesting == nesting
        assert torch.equal(found.state[key], state[key])


def test_a_moving_average_that_is_not_there_is_refused(tmp_path):
    path = write_pickle(tmp_path / "flat.pt", original(network().state_dict()))
    assert "found tensors without nesting, expected generator_ema" in refusal(path, config=CONFIG, ema=True)
    path = write_pickle(tmp_path / "ema.pt", {"generator_ema": original(network().state_dict())})
    assert "found generator_ema (holding" in refusal(path, config=CONFIG, ema=False)


def test_tensors_are_cast_when_read_and_when_they_fill_a_network(both):
    path, _, ema = both
    found = load_transformer(path, config=CONFIG, dtype=torch.bfloat16)
    assert {value.dtype for value in found.state.values()} == {torch.bfloat16}
    assert torch.equal(found.state["proj_out.bias"], ema["proj_out.bias"].bfloat16())
    wide = network()
    into(wide, found)
    assert wide.dtype == torch.float32
    assert torch.equal(wide.proj_out.weight, ema["proj_out.weight"].bfloat16().float())

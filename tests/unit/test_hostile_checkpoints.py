"""Checkpoints whose names and tables promise sizes that their files do not have."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from released_layouts import CONFIG, network, original, original_config
from safetensors.torch import save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models import parts
from astro_cli.models.checkpoint import load_transformer


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))


def write(folder: Path, config: dict[str, Any], **more: torch.Tensor) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = original(dict(network().state_dict())) | {name.replace("__", "."): value for name, value in more.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("number", ["100000000", "9" * 300])
def test_a_block_of_a_huge_number_is_refused_at_once(number, tmp_path):
    config = original_config() | {"num_layers": min(int(number), 10**8) + 1}
    folder = write(tmp_path / "a", config, **{f"blocks__{number}__modulation": torch.zeros(1, 6, CONFIG.dim)})
    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_transformer(folder)
    assert time.monotonic() - began < 5
    assert caught.value.exit_code == 2
    if len(number) < 10:
        assert f"blocks.{CONFIG.num_layers}: missing: the file has {CONFIG.num_layers + 1} blocks" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_heads": "2"}, "num_heads: found '2': Input should be a valid integer"),
        ({"num_heads": True}, "num_heads: found True"),
        ({"num_heads": None}, "num_heads: found null, expected a number"),
        ({"num_heads": 0}, "num_heads"),
        ({"num_heads": -2}, "num_heads"),
        ({"num_heads": 2**40}, "num_heads"),
        ({"dim": "24"}, "dim: found '24'"),
        ({"eps": "1e-6"}, "eps: found '1e-6'"),
        ({"eps": -1.0}, "impossible sizes"),
        ({"num_layers": [3]}, "num_layers: found [3]"),
        ({"text_len": 10**12}, "impossible sizes"),
    ],
)
def test_values_of_config_json_are_numbers(changes, says, tmp_path):
    folder = write(tmp_path / "a", original_config() | changes)
    with pytest.raises(CheckpointError) as caught:
        load_transformer(folder)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"patch_size": 2}, {"patch_size": "122"}, {"patch_size": [1, 2]}, {"patch_size": [1, "2", "2"]},
     {"patch_size": {}}, {"num_attention_heads": "2"}, {"attention_head_dim": None}, {"attention_head_dim": 2**63}],
)  # fmt: skip
def test_values_of_diffusers_config_json_are_numbers(changes, tmp_path):
    config = {"_class_name": "WanTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 12}
    folder = write(tmp_path / "a", config | changes)
    with pytest.raises(CheckpointError):
        load_transformer(folder)
    (folder / "config.json").write_text(json.dumps(config))
    assert load_transformer(folder).config.num_heads == 2


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"num_layers": 10**9}, "num_layers: found 1000000000, there are 3 tensors in the weights"),
        ({"text_config": {"num_hidden_layers": 4}}, "num_hidden_layers: found 4"),
        ({"vision_config": {"depth": 64}}, "depth: found 64"),
    ],
)
def test_a_part_with_more_layers_than_tensors_is_refused_before_it_is_laid_out(table, says, tmp_path):
    with pytest.raises(CheckpointError, match=says):
        parts.check_depth(table, dict.fromkeys("abc"), tmp_path)
    parts.check_depth({"num_layers": 3, "num_heads": 64, "depth": None}, dict.fromkeys("abc"), tmp_path)


@pytest.mark.parametrize("value", ["12", None, [1], -1, 2**63])
@pytest.mark.parametrize("key", ["d_model", "num_layers", "vocab_size", "feed_forward_proj"])
def test_a_config_that_a_library_does_not_take_is_named(key, value, tmp_path):
    from transformers import UMT5Config, UMT5EncoderModel

    table = {"model_type": "umt5", "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(table | {key: value}))
    tensors = {"a": torch.zeros(1)}

    def load() -> None:
        config = parts.configured(lambda table: UMT5Config(**table), tmp_path, "umt5")
        parts.check_depth(config.to_dict(), tensors, tmp_path)
        parts.assemble(lambda: UMT5EncoderModel(config), tensors, tmp_path, None)

    with pytest.raises(CheckpointError):
        load()

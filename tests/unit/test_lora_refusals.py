"""LoRA files that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_layouts import BASE, UNET, base_state, peft_folder, renamed, saved
from released_layouts import State, network
from safetensors.torch import save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models.lora_files import read_lora
from astro_cli.models.lora_merge import merge_loras

pytestmark = pytest.mark.usefixtures("nowhere")


def test_a_difference_that_fits_nothing_is_refused(tmp_path):
    save_file({"blocks.0.k_img.diff_b": torch.ones(2)}, tmp_path / "x.safetensors")
    text = refusal(tmp_path / "x.safetensors", network().state_dict())
    assert "1 of 1 changes match no layer (0 do): found blocks.0.k_img.bias" in text
    assert "it is a LoRA of an image-to-video model" in text
    save_file({"blocks.0.self_attn.q.diff_b": torch.ones(2)}, tmp_path / "x.safetensors")
    text = refusal(tmp_path / "x.safetensors", network().state_dict())
    assert "blocks.0.attn1.to_q.bias: it is (2,), expected (24,)" in text


def refusal(source: Path, base: State | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        merge_loras(base or {}, [read_lora(source)])
    return str(caught.value)


def test_a_lora_without_a_matching_layer_says_what_it_expected(adapted, tmp_path):
    save_file(
        {"unet.down.0.lora_A.weight": torch.ones(2, 3), "unet.down.0.lora_B.weight": torch.ones(3, 2)},
        tmp_path / "x.safetensors",
    )
    text = refusal(tmp_path / "x.safetensors", base_state(adapted))
    assert "1 of 1 pairs match no layer (0 do): found unet.down.0; expected condition_embedder." in text


def test_a_lora_with_some_strange_layers_is_refused(adapted, state, tmp_path):
    deeper = {key.replace("blocks.2.", "blocks.7."): value for key, value in state.items()}
    text = refusal(saved(tmp_path / "x.safetensors", renamed(deeper, UNET)), base_state(adapted))
    assert "10 of 30 pairs match no layer (20 do): found blocks.7.attn1.to_k, blocks.7.attn1.to_out.0" in text


def test_a_lora_of_another_width_is_refused(adapted, tmp_path):
    name = "blocks.0.attn1.to_q"
    save_file(
        {f"{name}.lora_A.weight": torch.ones(2, 30), f"{name}.lora_B.weight": torch.ones(24, 2)},
        tmp_path / "x.safetensors",
    )
    assert f"{name}: B A is (24, 30), expected (24, 24)" in refusal(tmp_path / "x.safetensors", base_state(adapted))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"l.lora_A.weight": torch.ones(2, 3)}, "l: half a pair: found only a"),
        ({"l.lora_A.weight": torch.ones(2, 3), "l.lora_B.weight": torch.ones(3, 5)}, "A is (2, 3) and B is (3, 5)"),
        (
            {"l.lora_A.weight": torch.ones(2, 3), "l.dora_scale": torch.ones(2)},
            "a DoRA adapter, expected a plain LoRA: 1 of 2 tensors are no LoRA parts: l.dora_scale",
        ),
        ({"l.lokr_w1": torch.ones(2)}, "a LoKr adapter, expected a plain LoRA"),
        ({"l.hada_w1_a": torch.ones(2)}, "a LoHa adapter, expected a plain LoRA"),
        (
            {f"l.lora_{half}.{name}.weight": torch.ones(2, 2) for half in "AB" for name in ("first", "second")},
            "holds 2 adapters: first, second, expected one",
        ),
        ({"blocks.0.attn1.to_q.weight": torch.ones(2, 3)}, "1 of 1 tensors are no LoRA parts"),
        (
            {f"{name}.lora_A.weight": torch.ones(2, 2) for name in ("blocks.0.attn1.to_q", "blocks.0.self_attn.q")},
            "one layer under two names",
        ),
    ],
)
def test_what_is_no_lora_is_refused(tensors, says, tmp_path):
    save_file(tensors, tmp_path / "x.safetensors")
    assert says in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"use_dora": True}, "use_dora: found True: a DoRA adapter, expected a plain LoRA"),
        ({"bias": "all"}, "bias: found 'all'"),
        ({"peft_type": "LOKR"}, "peft_type: found 'LOKR'"),
        ({"lora_alpha": "big"}, "lora_alpha: found 'big', expected a number"),
        ({"lora_alpha": True}, "lora_alpha: found True, expected a number"),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern: found '(', no pattern"),
        ({"alpha_pattern": [3]}, "alpha_pattern: found a list, expected an object"),
    ],
)
def test_other_adapters_are_refused(more, says, state, tmp_path):
    assert says in refusal(peft_folder(tmp_path / "p", renamed(state, BASE), safe=True, **more))


def test_a_folder_without_a_lora_is_refused(tmp_path):
    assert "not a LoRA folder: found no tensor file, expected adapter_model.safetensors" in refusal(tmp_path)

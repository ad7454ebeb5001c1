"""LoRA files that are written load into peft, diffusers and here."""

from __future__ import annotations

import pytest
import torch
from lora_layouts import ALPHA, RANK, base_state, loaded
from released_layouts import CONFIG, diffusers_model, forward
from safetensors import safe_open
from safetensors.torch import load_file

from astro_cli.models import lora, lora_files, weights
from astro_cli.models.lora_files import read_lora
from astro_cli.models.lora_merge import merge_loras

pytestmark = pytest.mark.usefixtures("nowhere")


def test_peft_loads_what_is_written(adapted, state, tmp_path):
    from peft import LoraConfig, set_peft_model_state_dict
    from peft.mapping import inject_adapter_in_model

    lora_files.save_peft(tmp_path, state, RANK, ALPHA, lora.TARGETS)
    fresh = loaded(base_state(adapted))
    inject_adapter_in_model(LoraConfig.from_pretrained(str(tmp_path)), fresh)
    result = set_peft_model_state_dict(fresh, load_file(tmp_path / "adapter_model.safetensors"))
    assert not result.unexpected_keys
    torch.testing.assert_close(forward(fresh), forward(adapted), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def diffusers_forward(model) -> torch.Tensor:
    rng = torch.Generator().manual_seed(7)
    text = torch.randn(1, CONFIG.text_len, CONFIG.text_dim, generator=rng)
    x = torch.randn(1, 2, CONFIG.in_channels, 4, 4, generator=rng)
    return model(x.transpose(1, 2), torch.tensor([400.0]), text).sample.transpose(1, 2)


@pytest.mark.parametrize("through", ["load_lora_adapter", "load_lora_weights"])
def test_diffusers_loads_what_is_written(through, adapted, state, tmp_path):
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    lora_files.save_diffusers(tmp_path, state, RANK, ALPHA, lora.TARGETS)
    theirs = diffusers_model(base_state(adapted))
    torch.testing.assert_close(diffusers_forward(theirs), forward(loaded(base_state(adapted))), atol=1e-5, rtol=1e-5)
    if through == "load_lora_adapter":
        theirs.load_lora_adapter(str(tmp_path), use_safetensors=True)
    else:
        nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
        WanPipeline(transformer=theirs, scheduler=UniPCMultistepScheduler(), **nothing).load_lora_weights(str(tmp_path))
    torch.testing.assert_close(diffusers_forward(theirs), forward(adapted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("save", [lora_files.save_peft, lora_files.save_diffusers])
def test_what_is_written_is_read_again(save, adapted, state, tmp_path):
    save(tmp_path, state, RANK, ALPHA, lora.TARGETS)
    found = read_lora(tmp_path)
    assert {pair.scale for pair in found.pairs.values()} == {ALPHA / RANK}
    torch.testing.assert_close(
        forward(loaded(merge_loras(base_state(adapted), [found]))), forward(adapted), atol=1e-5, rtol=1e-5
    )


def test_equal_adapters_are_equal_files(tmp_path):
    """The library orders a header's metadata as a hash table does, anew for each file."""
    state = {f"blocks.0.ffn.net.2.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    metadata = {f"key {number}": 'é\n"' for number in range(8)}
    written = []
    for name in ("a", "b"):
        lora_files.save_diffusers(tmp_path / name, state, 2, 2.0, "x")
        weights.write(tmp_path / f"{name}.safetensors", state, metadata)
        files = (tmp_path / name / "pytorch_lora_weights.safetensors", tmp_path / f"{name}.safetensors")
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", **metadata}
        assert torch.equal(file.get_tensor("blocks.0.ffn.net.2.lora_A.weight"), torch.ones(2, 2))

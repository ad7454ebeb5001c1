"""Sizes of transformer checkpoints: read from config.json or from the tensors; relatives of Wan and halves of
models are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from released_layouts import (
    CONFIG,
    diffusers_model,
    network,
    original,
    original_config,
    refusal,
    write_original,
    write_pickle,
)
from safetensors.torch import save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models.checkpoint import expected, into, load_transformer
from astro_cli.models.wan import sizes
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan

pytestmark = pytest.mark.usefixtures("nowhere")


# Sizes of Wan 2.1 (config.json of Wan-AI/Wan2.1-T2V-1.3B and -14B); parameters and tensors follow from them.
REAL = {
    "1.3B": (WanConfig(), 1_418_996_800, 825),
    "14B": (WanConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40), 14_288_491_584, 1095),
}


@pytest.mark.parametrize("size", REAL)
def test_the_real_sizes_on_the_meta_device(size):
    config, parameters, tensors = REAL[size]
    state = expected(config)
    assert all(value.is_meta for value in state.values())
    assert (sum(value.numel() for value in state.values()), len(state)) == (parameters, tensors)
    # without config.json the shapes alone give the size back; heads are 128 wide at the released widths
    assert sizes.settle(sizes.from_shapes(state, Path("x")), {}, None, Path("x")) == config
    assert sizes.name(config.model_dump()) == size


def test_a_network_on_the_meta_device_takes_the_tensors(tmp_path):
    wanted = network(1)
    found = load_transformer(write_original(tmp_path / "w", wanted.state_dict(), shards=True), dtype=torch.bfloat16)
    with torch.device("meta"):
        filled = CausalWan(found.config)
    into(filled, found)
    assert filled.dtype == torch.bfloat16
    assert all(p.requires_grad and not p.is_meta for p in filled.parameters())
    assert torch.equal(filled.proj_out.weight, wanted.proj_out.weight.bfloat16())


def test_14b_weights_in_a_1_3b_config_name_both_sizes():
    where = Path("krea-realtime-video-14b.safetensors")
    with pytest.raises(CheckpointError) as caught:
        sizes.settle(sizes.from_shapes(expected(REAL["14B"][0]), where), {}, REAL["1.3B"][0], where)
    assert "found 14B weights (dim 5120, ffn_dim 13824, num_layers 40, num_heads 40)" in str(caught.value)
    assert "expected 1.3B (dim 1536, ffn_dim 8960, num_layers 30, num_heads 12)" in str(caught.value)


def test_another_size_than_wanted_is_refused(tmp_path):
    path = write_original(tmp_path / "w", network().state_dict())
    wanted = CONFIG.model_copy(update={"num_layers": 2})
    assert "found 24-wide 3-layer weights (num_layers 3), expected 24-wide 2-layer (num_layers 2)" in refusal(
        path, config=wanted
    )
    assert "(num_heads 2), expected 24-wide 3-layer (num_heads 4)" in refusal(
        path, config=CONFIG.model_copy(update={"num_heads": 4})
    )


def test_config_json_must_fit_the_tensors(tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict())
    (folder / "config.json").write_text(json.dumps(original_config() | {"num_layers": 4}))
    assert "num_layers: config.json says 4, the tensors are of 3" in refusal(folder)
    (folder / "config.json").write_text(json.dumps(original_config() | {"num_heads": 5}))
    assert "impossible sizes" in refusal(folder)
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan", "z_dim": 16}))
    assert "found AutoencoderKLWan, expected WanTransformer3DModel or WanModel" in refusal(folder)
    (folder / "config.json").write_text(json.dumps(original_config() | {"model_type": "i2v"}))
    assert "an image-to-video model" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "no readable config" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "vace", "_class_name": "VaceWanModel"}, "a VACE model"),
        ({"_class_name": "WanVACETransformer3DModel"}, "a VACE model"),
        ({"model_type": "ti2v"}, "the text-image-to-video model of Wan 2.2"),
        ({"model_type": "flf2v"}, "a model of first and last frames"),
        ({"model_type": "s2v"}, "a speech-to-video model"),
        ({"image_dim": 1280}, "an image-to-video model"),
    ],
)
def test_relatives_of_wan_are_named(change, says, tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict())
    (folder / "config.json").write_text(json.dumps(original_config() | change))
    assert f"{says}, expected text-to-video of Wan 2.1" in refusal(folder)


@pytest.mark.parametrize(("channels", "says"), [(48, "text-image-to-video"), (36, "image-to-video")])
def test_relatives_without_a_config_are_known_by_their_channels(channels, says, tmp_path):
    state = network(config=CONFIG.model_copy(update={"in_channels": channels})).state_dict()
    assert says in refusal(write_pickle(tmp_path / "x.pt", original(state)), config=CONFIG)


def test_a_vace_file_is_known_by_its_names(tmp_path):
    state = network().state_dict() | {"vace_blocks.0.proj_out.weight": torch.zeros(2, 2)}
    assert "a VACE model" in refusal(write_pickle(tmp_path / "x.pt", original(state)), config=CONFIG)


@pytest.mark.parametrize("named", ["the pipeline", "one of the two", "a file of it"])
def test_half_of_a_model_of_two_transformers_is_refused(named, tmp_path):
    state = network().state_dict()
    pipeline, release = tmp_path / "pipe", tmp_path / "Wan2.2-T2V-A14B"
    for part in ("transformer", "transformer_2"):
        diffusers_model(state).save_pretrained(pipeline / part)
    for part in ("high_noise_model", "low_noise_model"):
        write_original(release / part, state)
    file = "diffusion_pytorch_model.safetensors"
    places = {
        "the pipeline": (pipeline, release),
        "one of the two": (pipeline / "transformer", release / "low_noise_model"),
        "a file of it": (pipeline / "transformer" / file, release / "high_noise_model" / file),
    }
    for place in places[named]:
        assert "half of a Wan 2.2 model with two transformers" in refusal(place)


def test_a_model_beside_the_two_halves_of_another_is_whole(tmp_path):
    state = network().state_dict()
    for part in ("high_noise_model", "low_noise_model"):
        write_original(tmp_path / part, state)
    load_transformer(write_original(tmp_path / "own", state), config=CONFIG)


def test_half_of_a_model_is_known_without_the_other_half(tmp_path):
    state = network().state_dict()
    pipe = tmp_path / "pipe"
    diffusers_model(state).save_pretrained(pipe / "transformer")
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    for more in ({"boundary_ratio": 0.875}, {"transformer_2": ["diffusers", "WanTransformer3DModel"]}):
        (pipe / "model_index.json").write_text(json.dumps(index | more))
        assert "half of a Wan 2.2 model" in refusal(pipe)
        assert "half of a Wan 2.2 model" in refusal(pipe / "transformer")
    (pipe / "model_index.json").write_text(json.dumps(index | {"boundary_ratio": None, "transformer_2": [None, None]}))
    assert load_transformer(pipe).config == CONFIG.model_copy(update={"text_len": 512})
    lone = tmp_path / "wan2.2_t2v_low_noise_14B_fp16.safetensors"
    save_file(original(state), lone)
    assert "half of a Wan 2.2 model" in refusal(lone, config=CONFIG)


def test_two_averages_in_an_unknown_file_are_said(capsys, tmp_path):
    both = {"generator": original(network(2).state_dict()), "generator_ema": original(network(1).state_dict())}
    known = write_pickle(tmp_path / "chunkwise" / "causal_forcing.pt", both)
    assert load_transformer(known, config=CONFIG).nesting == "generator"
    load_transformer(write_pickle(tmp_path / "mine.pt", both), config=CONFIG, ema=True)
    load_transformer(write_pickle(tmp_path / "one.pt", {"generator": both["generator"]}), config=CONFIG)
    assert capsys.readouterr().err == ""
    renamed = tmp_path / "mine.pt"
    assert load_transformer(renamed, config=CONFIG).nesting == "generator_ema"
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {renamed}: generator_ema is taken, generator left out: no known release")
    other = write_pickle(tmp_path / "other.pt", {"model": both["generator"], "model_ema": both["generator_ema"]})
    assert load_transformer(other, config=CONFIG).nesting == "model"
    assert "model is taken, model_ema left out" in capsys.readouterr().err


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict())
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    other = write_original(tmp_path / "other", network().state_dict())
    weights_file = "diffusion_pytorch_model.safetensors"
    for path in (folder / weights_file, other / "config.json", tmp_path / "x.pt"):
        path.write_text(pointer)
        text = refusal(path if path.suffix == ".pt" else path.parent)
        assert path.name in text
        assert "a pointer of git LFS, not the file itself" in text
        assert "hint: run `git lfs pull`" in text


def test_an_unknown_width_does_not_give_the_heads(tmp_path):
    assert "num_heads: width 24 does not give it" in refusal(
        write_pickle(tmp_path / "x.pt", original(network().state_dict()))
    )

"""The VAE as a stream: block after block equals the whole video, the original file equals diffusers' folder, and what
is refused.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from wan_folder import tiny_vae

from astro_cli.config.errors import CheckpointError
from astro_cli.models.vae import WanVAE, load_vae

CHUNKS = [[1] * 7, [3, 3, 1], [7], [2, 5], [1, 6]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan")
    tiny_vae().save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def vae(folder: Path) -> WanVAE:
    return load_vae(folder)


@pytest.fixture(scope="module")
def latents_BFCHW() -> torch.Tensor:
    return torch.randn(2, 7, 16, 4, 6, generator=torch.Generator().manual_seed(1))


def reference_decode(model: AutoencoderKLWan, latents_BFCHW: torch.Tensor) -> torch.Tensor:
    """diffusers' own whole-video decode, as its Wan pipeline calls it."""
    mean, std = (
        torch.tensor(values).view(1, 16, 1, 1, 1) for values in (model.config.latents_mean, model.config.latents_std)
    )
    with torch.no_grad():
        video = model.decode(latents_BFCHW.transpose(1, 2) * std + mean).sample
    return (video / 2 + 0.5).clamp(0, 1).transpose(1, 2)


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_a_stream_in_any_chunks_equals_the_whole_decode(vae, latents_BFCHW, chunks):
    whole, decoder = reference_decode(vae.model, latents_BFCHW), vae.decoder()
    pieces = [decoder.push(chunk) for chunk in latents_BFCHW.split(chunks, dim=1)]
    assert [piece.shape[1] for piece in pieces] == [
        4 * size - (3 if index == 0 else 0) for index, size in enumerate(chunks)
    ]
    found = torch.cat(pieces, 1)
    assert found.shape == (2, 25, 3, 32, 48)
    assert whole.std() > 0.05  # not gray on gray
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(vae.decode(latents_BFCHW), whole, atol=1e-5, rtol=0)


def test_streams_beside_each_other_do_not_mix(vae, latents_BFCHW):
    first, second = vae.decoder(), vae.decoder()
    a = [first.push(latents_BFCHW[:1, :2])]
    b = [second.push(latents_BFCHW[1:, :2])]
    a.append(first.push(latents_BFCHW[:1, 2:]))
    b.append(second.push(latents_BFCHW[1:, 2:]))
    torch.testing.assert_close(
        torch.cat((torch.cat(a, 1), torch.cat(b, 1))), vae.decode(latents_BFCHW), atol=1e-5, rtol=0
    )


def test_the_decoder_holds_no_more_after_many_frames(vae):
    def stored_numbers(decoder) -> int:
        return sum(value.numel() for value in decoder.features if isinstance(value, torch.Tensor))

    decoder = vae.decoder()
    sizes = []
    for _ in range(6):
        decoder.push(torch.zeros(1, 3, 16, 2, 2))
        sizes.append(stored_numbers(decoder))
    assert sizes[0] > 0
    assert sizes == [sizes[0]] * 6


def test_encode_normalises_the_posterior_mode(vae):
    frames_BTCHW = torch.rand(1, 9, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        mode = vae.model.encode(frames_BTCHW.transpose(1, 2) * 2 - 1).latent_dist.mode()
    latents = vae.encode(frames_BTCHW)
    assert latents.shape == (1, 3, 16, 2, 2)
    # channel 7 of Wan's constants: mean 1.5508, std 2.0743
    torch.testing.assert_close(latents[:, :, 7], (mode[:, 7] - 1.5508) / 2.0743, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="4F - 3"):
        vae.encode(frames_BTCHW[:, :8])


def original_name(key: str) -> str:
    """The name in Wan2.1_VAE.pth of a diffusers parameter, written from the original code's module tree."""
    key = re.sub(r"^(post_)?quant_conv", lambda found: "conv2" if found[1] else "conv1", key)
    key = key.replace(".conv_in.", ".conv1.").replace(".norm_out.", ".head.0.").replace(".conv_out.", ".head.2.")
    for place, name in (("resnets.0", "middle.0"), ("attentions.0", "middle.1"), ("resnets.1", "middle.2")):
        key = key.replace(f".mid_block.{place}.", f".{name}.")
    key = key.replace("encoder.down_blocks.", "encoder.downsamples.")
    block = re.match(r"^decoder\.up_blocks\.(\d)\.(resnets\.(\d)|upsamplers\.0)\.", key)
    if block:  # three residual blocks and an upsampler to a stage
        place = 4 * int(block[1]) + (3 if block[3] is None else int(block[3]))
        key = f"decoder.upsamples.{place}.{key[block.end() :]}"
    if ".resample." in key or "middle.1." in key:
        return key
    for part, name in (
        ("norm1", "residual.0"),
        ("conv1", "residual.2"),
        ("norm2", "residual.3"),
        ("conv2", "residual.6"),
    ):
        key = re.sub(rf"^((en|de)coder\.\w+\.\d+)\.{part}\.", rf"\1.{name}.", key)
    return key.replace(".conv_shortcut.", ".shortcut.")


def test_the_original_file_gives_the_same_frames(vae, latents_BFCHW, tmp_path):
    state = {original_name(key): value for key, value in vae.model.state_dict().items()}
    keys = (
        "conv2.weight",
        "decoder.middle.1.to_qkv.weight",
        "decoder.upsamples.3.time_conv.weight",
        "decoder.upsamples.4.shortcut.weight",
        "encoder.downsamples.2.resample.1.weight",
        "encoder.downsamples.3.residual.6.bias",
        "decoder.head.0.gamma",
    )
    for key in keys:
        assert key in state
    torch.save(state, tmp_path / "Wan2.1_VAE.pth")
    torch.testing.assert_close(load_vae(tmp_path).decode(latents_BFCHW), vae.decode(latents_BFCHW), atol=0, rtol=0)


def test_bfloat16_stays_close(folder, vae, latents_BFCHW):
    half = load_vae(folder, torch.bfloat16)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    error = (half.decode(latents_BFCHW) - vae.decode(latents_BFCHW)).abs()
    assert error.mean() < 0.02
    assert error.max() > 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("truncated", "damaged or not safetensors"),
        ("missing weights", "no weights in this folder"),
        ("config", "no readable config"),
        ("another model", "found a AutoencoderKL, expected AutoencoderKLWan"),
        ("another size", "another size"),
        ("a key less", "1 missing"),
        ("wan 2.2", "VAE of Wan 2.2"),
        ("nothing", "neither vae/"),
    ],
)
def test_a_bad_folder_is_refused(folder, tmp_path, damage, says):
    copy = tmp_path / "wan"
    shutil.copytree(folder, copy)
    file, config = copy / "vae" / "diffusion_pytorch_model.safetensors", copy / "vae" / "config.json"
    values = json.loads(config.read_text())
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "missing weights":
        file.unlink()
    elif damage == "config":
        config.write_text("{")
    elif damage == "another model":
        config.write_text(json.dumps(values | {"_class_name": "AutoencoderKL"}))
    elif damage == "another size":
        config.write_text(json.dumps(values | {"base_dim": 8}))
    elif damage == "a key less":
        state = load_file(file)
        state.pop("quant_conv.bias")
        save_file(state, file)
    elif damage == "wan 2.2":
        config.write_text(json.dumps(values | {"patch_size": 2}))
    else:
        shutil.rmtree(copy / "vae")
    with pytest.raises(CheckpointError, match=re.escape(says)):
        load_vae(copy)


class _Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", ["code", "list", "text", "truncated"])
def test_a_pickle_that_is_no_table_of_tensors_is_refused(content, tmp_path, capsys):
    file = tmp_path / "Wan2.1_VAE.pth"
    torch.save({"code": {"a": _Code()}, "list": [torch.zeros(1)]}.get(content, {"a": torch.zeros(9)}), file)
    if content == "text":
        file.write_text("not weights")
    elif content == "truncated":
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=r"Wan2\.1_VAE\.pth"):
        load_vae(tmp_path)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("chunks", [(1, 4, 4), (5, 4), (9,), (1, 8)])
def test_frames_encoded_as_they_come_are_the_whole_encoding(chunks):
    vae = WanVAE(tiny_vae())
    video = torch.rand(2, 9, 3, 16, 24, generator=torch.Generator().manual_seed(3))
    encoder = vae.encoder()
    streamed = torch.cat([encoder.encode(part) for part in video.split(list(chunks), dim=1)], 1)
    assert torch.allclose(streamed, vae.encode(video), atol=1e-5)
    with pytest.raises(ValueError, match="4F frames at a time, found 3"):
        encoder.encode(video[:, :3])
    with pytest.raises(ValueError, match="4F - 3 frames at the start, found 4"):
        vae.encoder().encode(video[:, :4])

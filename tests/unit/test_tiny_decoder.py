"""A tiny decoder in the layout of the released files: names, frames, streaming, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from astro_cli.config.errors import CheckpointError
from astro_cli.models.tiny_decoder import load_tiny_decoder, new_tiny_decoder

WIDTHS = (8, 6, 4, 4)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return new_tiny_decoder(16, WIDTHS)


def saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def test_names_are_those_of_the_released_files(state):
    """Convolutions in places 1, 8, 14, 20 and 22; memory blocks in threes before each doubling; maps in 7, 13, 19."""
    whole = {f"decoder.{place}.weight" for place in (1, 8, 14, 20, 22)}
    whole |= {"decoder.1.bias", "decoder.22.bias"}
    whole |= {f"decoder.{place}.conv.weight" for place in (7, 13, 19)}
    for place in (3, 4, 5, 9, 10, 11, 15, 16, 17):
        for layer in (0, 2, 4):
            whole |= {f"decoder.{place}.conv.{layer}.{kind}" for kind in ("weight", "bias")}
    assert set(state) == whole
    assert state["decoder.3.conv.0.weight"].shape == (8, 16, 3, 3)  # its input and the one before it
    assert state["decoder.13.conv.weight"].shape == (12, 6, 1, 1)  # two frames of one


def plain(state: dict[str, torch.Tensor], latents_FCHW: torch.Tensor) -> torch.Tensor:
    """The whole video at once, written out: frames (4F - 3, 3, 8H, 8W)."""

    def conv(x: torch.Tensor, key: str, padding: int = 1) -> torch.Tensor:
        return functional.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), padding=padding)

    x = conv(torch.tanh(latents_FCHW / 3) * 3, "decoder.1").relu()
    for first, grow in ((3, 7), (9, 13), (15, 19)):
        for place in range(first, first + 3):
            past = torch.cat((torch.zeros_like(x[:1]), x[:-1]))
            y = torch.cat((x, past), 1)
            for layer in (0, 2, 4):
                y = conv(y if layer == 0 else y.relu(), f"decoder.{place}.conv.{layer}")
            x = (y + x).relu()
        x = conv(functional.interpolate(x, scale_factor=2), f"decoder.{grow}.conv", 0)
        x = x.reshape(-1, state[f"decoder.{grow + 1}.weight"].shape[1], *x.shape[-2:])
        x = conv(x, f"decoder.{grow + 1}")
    return conv(x.relu(), "decoder.22")[3:].clamp(0, 1)


def test_blocks_give_the_frames_of_the_whole_video(state, tmp_path):
    latents = torch.randn(2, 5, 16, 3, 4, generator=torch.Generator().manual_seed(1))
    decoder = load_tiny_decoder(saved(state, tmp_path / "taew2_1.safetensors")).decoder()
    frames = torch.cat([decoder.push(part) for part in latents.split((1, 2, 2), 1)], 1)
    assert frames.shape == (2, 17, 3, 24, 32)  # 4 x 5 - 3
    for video, expected in zip(frames, latents, strict=True):
        torch.testing.assert_close(video, plain(state, expected), atol=1e-5, rtol=0)


def test_an_encoder_beside_it_is_not_read_and_a_double_first_map_is_halved(state, tmp_path):
    latents = torch.randn(1, 2, 16, 2, 2, generator=torch.Generator().manual_seed(1))
    alone = load_tiny_decoder(saved(state, tmp_path / "a.safetensors")).decoder().push(latents)
    first = state["decoder.7.conv.weight"]
    more = state | {"decoder.7.conv.weight": torch.cat((first + 1, first)), "encoder.0.weight": torch.ones(2)}
    assert torch.equal(load_tiny_decoder(saved(more, tmp_path / "b.safetensors")).decoder().push(latents), alone)


def test_other_files_are_refused(state, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_tiny_decoder(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"decoder\.1\.weight: missing: not a tiny decoder"):
        load_tiny_decoder(saved({"x": torch.ones(1)}, tmp_path / "x.safetensors"))
    state.pop("decoder.22.bias")
    with pytest.raises(CheckpointError, match="missing"):
        load_tiny_decoder(saved(state, tmp_path / "y.safetensors"))


def test_a_pth_file_is_read_as_plain_tensors_and_nothing_else(state, tmp_path):
    """The published files are of torch.save, with the encoder beside the decoder."""
    torch.save({"encoder.0.weight": torch.zeros(2), **state}, tmp_path / "taew2_1.pth")
    first = load_tiny_decoder(tmp_path / "taew2_1.pth")
    second = load_tiny_decoder(saved(state, tmp_path / "taew2_1.safetensors"))
    latents = torch.randn(1, 2, 16, 2, 2)
    assert torch.equal(first.decoder().push(latents), second.decoder().push(latents))
    torch.save({**state, "decoder.30.weight": Path}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError):
        load_tiny_decoder(tmp_path / "code.pth")

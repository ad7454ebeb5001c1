"""Strengths of LoRAs: half is half, none changes no bit, two add in any order, and how `SOURCE:STRENGTH` is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.generate.arm import load_arm
from astro_cli.models.importing import import_checkpoint
from astro_cli.models.lora_merge import merge_loras, read_loras, split_strength

WEIGHT = "l.weight"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, hub_cache):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, a: torch.Tensor, b: torch.Tensor) -> Path:
    save_file({"l.lora_A.weight": a, "l.lora_B.weight": b}, path)
    return path


def filled(path: Path, value: float) -> Path:
    """B A is `value` everywhere, of a layer 2 x 3; rank 1, so the scale is 1."""
    return write(path, torch.ones(1, 3), torch.full((2, 1), value))


def merged(state: dict[str, torch.Tensor], *texts: str) -> torch.Tensor:
    return merge_loras(state, read_loras(texts))[WEIGHT]


def test_two_adapters_add_each_at_its_strength(folder):
    filled(folder / "a.safetensors", 4.0)
    filled(folder / "b.safetensors", -2.0)
    base = {WEIGHT: torch.ones(2, 3)}
    # 1 + 0.5 * 4 = 3;  1 + 4 - 2 = 3;  1 + 0.25 * 4 + 1.5 * -2 = -1;  1 - 4 = -3
    assert torch.equal(merged(base, "a.safetensors:0.5"), torch.full((2, 3), 3.0))
    assert torch.equal(merged(base, "a.safetensors", "b.safetensors"), torch.full((2, 3), 3.0))
    assert torch.equal(merged(base, "a.safetensors:0.25", "b.safetensors:1.5"), torch.full((2, 3), -1.0))
    assert torch.equal(merged(base, "a.safetensors:-1"), torch.full((2, 3), -3.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_0_is_the_base_bit_for_bit(folder, dtype):
    rng = torch.Generator().manual_seed(0)
    write(folder / "a.safetensors", torch.randn(4, 3, generator=rng), torch.randn(2, 4, generator=rng))
    weight = torch.randn(2, 3, generator=rng).to(dtype)
    weight[0, 0] = -0.0  # which + 0 would turn into 0
    found = merged({WEIGHT: weight}, "a.safetensors:0")
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), weight.view(torch.uint8))


def test_the_order_of_adapters_does_not_matter_bit_for_bit(folder):
    rng = torch.Generator().manual_seed(1)
    base = {WEIGHT: torch.randn(20, 30, generator=rng)}
    texts = []
    for index, strength in enumerate((0.3, 1.0, -2.7)):
        a, b = torch.randn(4, 30, generator=rng), torch.randn(20, 4, generator=rng)
        texts.append(f"{write(folder / f'{index}.safetensors', a, b)}:{strength}")
    forward, backward = merged(base, *texts), merged(base, *reversed(texts))
    assert torch.equal(forward, backward)
    assert not torch.equal(forward, merged(base, *texts[:2]))


def test_one_adapter_twice_is_refused_whatever_its_file_is_called(folder):
    filled(folder / "a.safetensors", 1.0)
    filled(folder / "copy.safetensors", 1.0)
    with pytest.raises(CheckpointError, match="the same adapter as") as caught:
        read_loras(["a.safetensors:0.5", "copy.safetensors:0.5"])
    assert caught.value.hint == "name it once, with the sum of the strengths"


def test_an_adapter_of_strength_0_must_fit_too(folder):
    filled(folder / "a.safetensors", 1.0)
    with pytest.raises(CheckpointError, match="B A is"):
        merged({WEIGHT: torch.ones(5, 3)}, "a.safetensors:0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("a:1e-1", ("a", 0.1)),
        ("a:-1", ("a", -1.0)),
        ("you/lora@v1/x.safetensors:0.5", ("you/lora@v1/x.safetensors", 0.5)),
        ("longlive_lora:2", ("longlive_lora", 2.0)),
        (r"C:\loras\a.safetensors", (r"C:\loras\a.safetensors", 1.0)),
        (r"C:\loras\a.safetensors:0.8", (r"C:\loras\a.safetensors", 0.8)),
        ("A:0.5", ("A", 0.5)),
        ("C:/loras/a.safetensors", ("C:/loras/a.safetensors", 1.0)),
        ("run 12:30/a.safetensors", ("run 12:30/a.safetensors", 1.0)),
    ],
)
def test_a_strength_is_behind_the_last_colon(text, expected):
    assert split_strength(text) == expected


def test_a_path_that_is_here_has_no_strength(folder):
    filled(folder / "epoch:10", 1.0)
    assert split_strength("epoch:10") == ("epoch:10", 1.0)
    assert split_strength("epoch:10:0.5") == ("epoch:10", 0.5)


@pytest.mark.parametrize(
    "text",
    ["my.safetensors:strong", "my.safetensors:", "my.safetensors:nan", "my.safetensors:inf", "A:x", "A:nan", "A:"],
)
def test_a_strength_that_is_no_number_is_named(text):
    with pytest.raises(CheckpointError, match="expected a finite number behind the colon") as caught:
        split_strength(text)
    assert "--lora style.safetensors:0.8" in caught.value.hint


@pytest.mark.parametrize("text", [":0.5", ":x"])
def test_a_strength_of_no_adapter_is_refused(text):
    with pytest.raises(CheckpointError, match="found no adapter before the colon"):
        split_strength(text)


def test_strengths_are_checked_before_anything_is_looked_for():
    with pytest.raises(CheckpointError, match="found the strength 'x'"):
        read_loras(["missing.safetensors", "A:x"])
    with pytest.raises(CheckpointError, match="found the strength 'nan'"):
        load_arm("missing.safetensors", lora=["A:nan"])
    with pytest.raises(CheckpointError, match="found the strength 'x'"):
        import_checkpoint("missing.safetensors", None, lora=["A:x"], dtype=None, ema=None, report=lambda *_: None)

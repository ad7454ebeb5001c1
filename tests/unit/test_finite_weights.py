"""Every loader of weights refuses numbers that are not finite, and names file and tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from released_layouts import CONFIG, network, original, write_original, write_pickle
from safetensors.torch import save_file
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models import network_files as files
from astro_cli.models import parts, weights
from astro_cli.models.checkpoint import into, load_transformer
from astro_cli.models.lora_files import read_lora
from astro_cli.models.lora_merge import merge_loras
from astro_cli.models.shapes_backbone import load_shapes_backbone

NAN, INF = float("nan"), float("inf")


def test_finite_numbers_pass_as_they_are() -> None:
    for value in (torch.tensor([-3e38, 3e38]), torch.tensor([65504.0]).half(), torch.tensor([2**40]), torch.zeros(0)):
        assert weights.checked(value, Path("x"), "k") is value
    assert weights.checked(torch.tensor([65504.0]), Path("x"), "k", torch.float16).item() == 65504.0
    assert weights.checked(torch.tensor([70000.0]), Path("x"), "k", torch.bfloat16).item() == 70144.0  # 137 * 512


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_one_number_is_enough(dtype: torch.dtype, number: float) -> None:
    value = torch.zeros(70, 3, dtype=dtype)
    value[69, 2] = number
    with pytest.raises(CheckpointError, match=r"x: k: 1 of its 210 numbers are NaN or infinite"):
        weights.checked(value, Path("x"), "k")


@pytest.mark.parametrize(
    ("number", "dtype", "says"),
    [
        (65520.0, torch.float16, "overflows float16: found 65520, float16 ends at 65504"),  # the first that rounds up
        (-7e4, torch.float16, "overflows float16: found 70000, float16 ends at 65504"),
        (3.4e38, torch.bfloat16, "overflows bfloat16"),
    ],
)
def test_a_cast_that_overflows_is_refused(number: float, dtype: torch.dtype, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        weights.checked(torch.tensor([0.0, number]), Path("x"), "k", dtype)
    assert caught.value.hint == "use bfloat16 or float32"


def spoilt(state: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    state = {name: value.clone() for name, value in state.items()}
    state[key].view(-1)[0] = NAN
    return state


def transformer(write: Callable[[Path, dict[str, torch.Tensor]], Path]) -> Callable[[Path], object]:
    def load(at: Path) -> object:
        path = write(at, spoilt(network(1).state_dict(), "proj_out.weight"))
        return into(network(0), load_transformer(path, config=CONFIG))

    return load


def codec(at: Path) -> object:
    state = spoilt(weights.read(weights.PACKAGED / "shapes" / "codec.safetensors"), "mean")
    save_file(state, at / "codec.safetensors")
    return load_shapes_backbone(str(at / "codec.safetensors"))


def of_a_run(at: Path) -> object:
    save_file(spoilt(nn.Linear(2, 2).state_dict(), "bias"), at / "x.safetensors")
    return weights.load_into(nn.Linear(2, 2), at / "x.safetensors")


def part(at: Path) -> object:
    return parts.assemble(lambda: nn.Linear(2, 2), spoilt(nn.Linear(2, 2).state_dict(), "bias"), at, None)


def scorer(at: Path) -> object:
    return files.fill(nn.Linear(2, 2), spoilt(nn.Linear(2, 2).state_dict(), "bias"), at, "a head")


def adapter(key: str) -> Callable[[Path], object]:
    def load(at: Path) -> object:
        halves = {"l.lora_A.weight": torch.ones(2, 3), "l.lora_B.weight": torch.ones(3, 2), "l.alpha": torch.ones(1)}
        save_file(spoilt(halves, key), at / "x.safetensors")
        return dict(merge_loras({"l.weight": torch.zeros(3, 3)}, [read_lora(at / "x.safetensors")]))

    return load


def folder(at: Path, state: dict[str, torch.Tensor], shards: bool = False) -> Path:
    return write_original(at / "Wan2.1-T2V-1.3B", state, shards=shards)


LOADERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "safetensors": (transformer(folder), "proj_out.weight"),
    "shards": (transformer(lambda at, state: folder(at, state, True)), "proj_out.weight"),
    "torch.save": (
        transformer(lambda at, state: write_pickle(at / "ode_init.pt", {"generator": original(state)})),
        "proj_out.weight",
    ),
    "codec": (codec, "mean"),
    "network of a run": (of_a_run, "bias"),
    "VAE and text encoder": (part, "bias"),
    "scorer": (scorer, "bias"),
    "LoRA, A": (adapter("l.lora_A.weight"), "lora_A"),
    "LoRA, B": (adapter("l.lora_B.weight"), "lora_B"),
    "LoRA, alpha": (adapter("l.alpha"), "l.alpha: found nan"),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_refuses_them(loader: str, tmp_path: Path) -> None:
    load, key = LOADERS[loader]
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert key in str(caught.value)
    assert "NaN or infinite" in str(caught.value) or "expected a number" in str(caught.value)


def test_a_merged_layer_that_overflows_is_refused(tmp_path: Path) -> None:
    # W 60000 in float16, B A 2 x 4000 = 8000: 68000 is past 65504
    save_file(
        {"l.lora_A.weight": torch.full((2, 1), 4000.0), "l.lora_B.weight": torch.ones(1, 2)}, tmp_path / "x.safetensors"
    )
    state = {"l.weight": torch.full((1, 1), 6e4).half()}
    with pytest.raises(CheckpointError, match="overflows float16: found 68000"):
        dict(merge_loras(state, [read_lora(tmp_path / "x.safetensors")]))

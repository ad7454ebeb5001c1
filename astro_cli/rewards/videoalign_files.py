"""VideoAlign's released folder: its settings, and its weights in both layouts as one state dict.

A folder holds `model_config.json`, `prompt_template.py` and `checkpoint-<step>/` with either `model.pth` (everything,
wrapped by peft) or `adapter_model.safetensors` with `non_lora_state_dict.pth` (the rest is the base model's), and
perhaps `tokenizer/`.
Source: VideoAlign (arXiv 2501.13918), its released folder and inference code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.models import nesting, parts, tensor_files
from astro_cli.models.tensor_files import LazyTensor, of_tensor
from astro_cli.rewards import qwen2_vl_weights, scorer_places

FULL, ADAPTER, REST = "model.pth", "adapter_model.safetensors", "non_lora_state_dict.pth"
WRAPPER = "base_model.model."  # peft's name of what it wraps
BASE_LAYER = ".base_layer."
HALF = re.compile(r"^(?P<layer>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight$")
NORM = {
    "VQ": (3.6757, 2.2476),
    "MQ": (1.1646, 1.3811),
    "TA": (2.8105, 2.5121),
}  # mean, deviation of raw scores; used where the file has none
DEFAULTS = {"fps": 2.0, "max_frame_pixels": 256 * 28 * 28, "output_dim": 1, "lora_r": 64, "lora_alpha": 128}
WANTED = {"prompt_template_type": "detailed_special", "sample_type": "uniform", "reward_token": "special"}


@dataclass(frozen=True)
class Settings:
    """What a VideoAlign checkpoint was trained with.

    Attributes:
        fps: frames per second that are sampled.
        max_pixels: of a frame.
        outputs: of the head, 1 or 3; of 3 the diagonal counts.
        scale: alpha / rank of the adapter.
        norm: (mean, deviation) of raw VQ, MQ, TA.
    """

    fps: float
    max_pixels: int
    outputs: int
    scale: float
    norm: tuple[tuple[float, float], ...]


def read_settings(folder: Path) -> Settings:
    """`model_config.json`, with the documented default of a key it leaves out.

    Raises:
        CheckpointError: unreadable, a number that is none, or another template, sampling or pooling than is
            implemented.
    """
    path = folder / scorer_places.SETTINGS_FILE
    data = Reader(CheckpointError, what="no readable settings").table(path)
    try:
        table = {**data.get("data_config", {}), **data.get("model_config", {}), **data.get("peft_lora_config", {})}
        norm = dict(data.get("inference_config") or {})
    except (TypeError, ValueError) as error:
        raise CheckpointError(path, "", f"no readable settings: {error}") from error
    for key, wanted in WANTED.items():
        if table.get(key, wanted) != wanted:
            raise CheckpointError(path, key, f"found {table[key]!r}, expected {wanted!r}")
    if table.get("num_frames") is not None:
        raise CheckpointError(
            path, "num_frames", f"found {table['num_frames']}, expected null: frames are sampled by fps"
        )
    values = {key: _number(table.get(key, default), path, key) for key, default in DEFAULTS.items()}
    if values["output_dim"] not in (1, 3):
        raise CheckpointError(path, "output_dim", f"found {table['output_dim']}, expected 1 or 3")
    pairs = tuple(
        (
            _number(norm.get(f"{key}_mean", mean), path, f"{key}_mean"),
            _number(norm.get(f"{key}_std", deviation), path, f"{key}_std"),
        )
        for key, (mean, deviation) in NORM.items()
    )
    scale = values["lora_alpha"] / values["lora_r"]
    return Settings(values["fps"], int(values["max_frame_pixels"]), int(values["output_dim"]), scale, pairs)


def _number(value: Any, path: Path, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or (not key.endswith("_mean") and value <= 0):
        raise CheckpointError(
            path, key, f"found {value!r}, expected a number" + ("" if key.endswith("_mean") else " above 0")
        )
    return float(value)


def weight_files(step: Path, base: Path) -> tuple[Path, ...]:
    """The files of tensors that will be read.

    Raises:
        CheckpointError: neither layout is complete.
    """
    if (step / FULL).is_file():
        return (step / FULL,)
    lost = [name for name in (ADAPTER, REST) if not (step / name).is_file()]
    if lost:
        raise CheckpointError(
            step,
            lost[0],
            f"missing: expected {FULL}, or {ADAPTER} with {REST}",
            hint="copy the whole checkpoint folder",
        )
    shards = sorted(path for path in base.glob("*.safetensors") if not path.name.startswith("."))
    return (step / ADAPTER, step / REST, *shards)


def read_state(step: Path, base: Path, scale: float) -> dict[str, Any]:
    """Tensors by transformers 5's names, the adapter merged in float32: W + scale B A.

    Raises:
        CheckpointError: files that are missing, damaged or unsafe, or half an adapter pair.

    **Deviations:** the released code runs the adapter beside the bfloat16 weights; merged, each product is rounded
    once.
    """
    files = weight_files(step, base)
    if files[0].name == FULL:
        state = nesting.unwrap(tensor_files.open_file(files[0]), ("model",), files[0])[0]
    else:
        state = {**_base_state(base), **nesting.unwrap(tensor_files.open_file(step / REST), ("model",), step / REST)[0]}
        state |= tensor_files.open_safetensors(step / ADAPTER)
    plain = {key.removeprefix(WRAPPER): value for key, value in state.items()}
    halves = {key: match for key in plain if (match := HALF.match(key))}
    weights = {key.replace(BASE_LAYER, "."): value for key, value in plain.items() if key not in halves}
    pairs: dict[str, dict[str, LazyTensor]] = {}
    for key, match in halves.items():
        pairs.setdefault(match["layer"], {})[match["half"]] = plain[key]
    return qwen2_vl_weights.current_names(weights | _merged(weights, pairs, scale, files[0]))


def _base_state(base: Path) -> dict[str, LazyTensor]:
    """The base model's own tensors; a language head that is tied is not stored."""
    return {key: of_tensor(value) for key, value in parts.state(base).items() if not key.startswith("lm_head")}


def _merged(
    weights: Mapping[str, LazyTensor], pairs: Mapping[str, Mapping[str, LazyTensor]], scale: float, where: Path
) -> dict[str, LazyTensor]:
    merged = {}
    for layer, halves in pairs.items():
        key = f"{layer}.weight"
        if len(halves) != 2:
            raise CheckpointError(where, layer, f"half an adapter pair: found lora_{next(iter(halves))} alone")
        if key not in weights:
            raise CheckpointError(
                where, layer, "an adapter without its layer's weight", hint="are the base model's weights complete?"
            )
        a, b = halves["A"].read().float(), halves["B"].read().float()
        product, shape = (b.shape[0], a.shape[-1]), weights[key].shape
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or product != shape:
            raise CheckpointError(
                where, layer, f"B is {tuple(b.shape)} and A is {tuple(a.shape)}, the weight is {shape}"
            )
        merged[key] = of_tensor(weights[key].read().to(torch.float32) + scale * (b @ a))
    return merged

"""Parts of a Wan 2.1 folder (text encoder, VAE) from disk into a library's module, every key and shape checked.

A part is a folder as diffusers and transformers write it (`config.json`, one safetensors file or shards with an index)
or one original file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.models import tensor_files, weights

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)
DEPTHS = ("num_layers", "num_hidden_layers", "depth", "num_res_blocks")  # keys that say how many layers there are
STEMS = ("model", "diffusion_pytorch_model")  # transformers' and diffusers' names of a part's weights
FOLDER_HINT = "do the weights belong to the config.json beside them?"


def original_file(folder: Path, stem: str, other: str) -> Path:
    """`stem` with a known ending, in a folder of original Wan files.

    Raises:
        CheckpointError: no such file; the message also names the folder `other`, which the caller did not find.
    """
    file = next((path for ending in tensor_files.SUFFIXES if (path := folder / f"{stem}{ending}").is_file()), None)
    if file is None:
        what = f"neither {other} (diffusers' layout) nor {stem}.pth (original) is in this folder"
        raise CheckpointError(folder, "", what, hint="name a folder of Wan 2.1, for example Wan2.1-T2V-1.3B-Diffusers")
    return file


def config(folder: Path, model: str) -> dict[str, Any]:
    """A part's config.json.

    Raises:
        CheckpointError: missing, damaged, or of a model that does not have `model` in its name.
    """
    path = folder / "config.json"
    data = Reader(CheckpointError, what="no readable config", hint="copy the part's whole folder").table(path)
    kind = str(data.get("_class_name") or data.get("model_type"))
    if model.lower() not in kind.lower():
        raise CheckpointError(path, "", f"found a {kind}, expected {model}")
    return {key: value for key, value in data.items() if not key.startswith("_")}


def configured(make: Callable[[dict[str, Any]], C], folder: Path, model: str) -> C:
    """A library's configuration of a part, from its config.json.

    Raises:
        CheckpointError: as `config`, or with values that the library does not take.
    """
    table = config(folder, model)
    try:
        return make(table)
    except Exception as error:  # the library has no error of its own for wrong values: it raises what it meets
        what = f"no configuration of {model}: {_first_line(error)}"
        raise CheckpointError(folder / "config.json", "", what, hint="copy the part's whole folder") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def check_depth(table: Mapping[str, Any], tensors: Mapping[str, Any], where: Path) -> None:
    """Refuse more layers than there are tensors, before they are laid out one by one.

    Raises:
        CheckpointError: a number of layers or blocks, with its key.
    """
    for key, value in table.items():
        if isinstance(value, dict):
            check_depth(value, tensors, where)
        if isinstance(value, int) and key in DEPTHS and value > len(tensors):
            what = f"found {value}, there are {len(tensors)} tensors in the weights"
            raise CheckpointError(where, key, what, hint=FOLDER_HINT)


def state(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a part: a folder with its shards, or one file. They are mapped, not read, where the format allows.

    Raises:
        CheckpointError: files that are missing or damaged, or a pickle that holds anything but tensors.
    """
    tensors = tensor_files.open_file(_weights_file(path) if path.is_dir() else path)
    foreign = [key for key, value in tensors.items() if not isinstance(value, tensor_files.LazyTensor | torch.Tensor)]
    if foreign:
        raise CheckpointError(path, foreign[0], "not a tensor: expected a flat table of tensors")
    return {
        key: value.read() if isinstance(value, tensor_files.LazyTensor) else value for key, value in tensors.items()
    }


def _weights_file(folder: Path) -> Path:
    names = [f"{stem}{ending}" for stem in STEMS for ending in (".safetensors", tensor_files.INDEX)]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(folder, names[0], "no weights in this folder", hint="copy the part's whole folder")
    return file


def assemble(
    build: Callable[[], M],
    tensors: Mapping[str, torch.Tensor],
    where: Path,
    dtype: torch.dtype | None,
    tied: tuple[str, ...] = (),
) -> M:
    """A module around tensors that are there already: nothing is initialised or copied before the cast.

    Args:
        build: makes the module; called on the meta device.
        dtype: to cast to; default the tensors' own.
        tied: keys that share another's tensor and are not stored; the caller ties them.

    Raises:
        CheckpointError: missing, unexpected or wrongly shaped tensors, or numbers that are not finite.
    """
    try:
        with torch.device("meta"):
            module = build()
    except Exception as error:  # of the library, for sizes that do not go together
        raise CheckpointError(
            where, "config.json", f"impossible sizes: {_first_line(error)}", hint=FOLDER_HINT
        ) from error
    weights.check_state(
        tensors, {key: value for key, value in module.state_dict().items() if key not in tied}, where, FOLDER_HINT
    )
    module.load_state_dict(
        {key: weights.checked(value, where, key, dtype) for key, value in tensors.items()},
        strict=False,
        assign=True,
    )
    return module

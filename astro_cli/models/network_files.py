"""Reads weights files of scorers as state dicts: safetensors, torch.save, OpenAI's TorchScript archives. Unpickles
plain tensors only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import check_regular
from astro_cli.models import nesting, weights
from astro_cli.models.tensor_files import BROKEN, check_archive, is_archive, open_file, open_pickle, some

State = dict[str, torch.Tensor]
NESTINGS = ("state_dict", "model")
TARRED = ".pth.tar"  # by habit of older code; a torch.save file all the same
TORCHSCRIPT_PART = "/code/"  # a folder only TorchScript archives have


def read(path: Path) -> State:
    """All tensors of a file, nesting taken off.

    Raises:
        CheckpointError: missing, damaged, or with more than tensors in it.

    Source: OpenAI releases CLIP as TorchScript archives; torch's own interpreter reads them, and only their tensors are
        used.
    """
    check_regular(path, CheckpointError)
    if _is_torchscript(path):
        return _torchscript(path)
    content = open_pickle(path) if path.name.endswith(TARRED) else open_file(path)
    tensors, _ = nesting.unwrap(content, NESTINGS, path)
    return {name: tensor.read() for name, tensor in tensors.items()}


def _is_torchscript(path: Path) -> bool:
    if not is_archive(path):
        return False
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        return any(TORCHSCRIPT_PART in name for name in archive.namelist())


def _torchscript(path: Path) -> State:
    try:
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    except BROKEN as error:
        first = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(path, "", f"damaged TorchScript archive: {first}") from error


def below(state: Mapping[str, torch.Tensor], prefix: str) -> State:
    """The tensors under `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def demand(state: Mapping[str, torch.Tensor], names: tuple[str, ...], path: Path, what: str) -> None:
    """Refuse a file that lacks what the sizes of a model are read from.

    Raises:
        CheckpointError: the first name that is not there, what is expected and what the file holds.
    """
    lost = next((name for name in names if name not in state), None)
    if lost is not None:
        raise CheckpointError(
            path, lost, f"not in the file, expected {what}; found {some(sorted(state)) or 'no tensors'}"
        )


def fill(module: nn.Module, state: State, path: Path, what: str) -> nn.Module:
    """Load float32 copies, every name and shape checked; the module is ready for inference, on the GPU where there is
    one.

    Raises:
        CheckpointError: names or shapes of another model, or numbers that are not finite.
    """
    weights.check_state(state, module.state_dict(), path, f"expected {what}")
    module.load_state_dict({name: weights.checked(value, path, name, torch.float32) for name, value in state.items()})
    return module.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")

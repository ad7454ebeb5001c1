"""Networks whose weights, gradients and optimiser states are divided among a run's processes, as accelerate's launcher
asks for with `--use_fsdp`; their checkpoints, of which every process writes its own part.

Only transformers are divided (`models.wan.sharding`, FSDP 2); all else is whole in every process. A checkpoint's files
are safetensors in the layout of torch's `HuggingFaceStorageWriter`, from which any number of processes reads its parts.

**Deviations**: accelerate's launcher sets the flag; the networks are divided here and not by `Accelerator.prepare`,
since a loss calls them through other methods than `forward`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.models.roles import Roles
from astro_cli.models.wan.sharding import shard
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.recipe import objective_class
from astro_cli.spec import Recipe

FLAG = "ACCELERATE_USE_FSDP"  # accelerate's, of its launcher's --use_fsdp


def is_wanted() -> bool:
    """Whether the launcher asks for it."""
    return parse_flag_from_env(FLAG)


def check(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be trained so.

    Raises:
        RecipeError: an objective that has copies of a network, or an optimiser that needs whole matrices.
    """
    hint = "start without --use_fsdp: every process then holds the whole networks"
    for name in recipe.order:
        stage = recipe.stages[name]
        if not objective_class(stage).shards:
            what = f"found {stage.kind!r}, which does not train networks that are divided among processes"
            raise RecipeError(recipe.name, f"stages.{name}.objective.kind", what, hint=hint)
        for role, spec in stage.optim.items():
            if spec.kind == "muon":
                what = "found 'muon', which needs whole matrices, expected 'adam' or 'rmsprop' with --use_fsdp"
                raise RecipeError(recipe.name, f"stages.{name}.optim.{role}.kind", what, hint=hint)


def divide(roles: Roles, accelerator: Accelerator) -> None:
    """Divide every transformer among the processes."""
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # none is changed in place
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in roles.modules.values():
        if isinstance(module, CausalWan):
            shard(module, mesh)


def is_divided(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, DTensor)


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor; all of one that is not divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; the processes must call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    """A whole tensor, divided as `like` is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def write(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors into a folder, each process its parts; the processes must call it together."""
    save(dict(tensors), storage_writer=HuggingFaceStorageWriter(path=str(folder), save_distributed=True))


def read(folder: Path, like: Callable[[str], torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """Tensors that any number of processes wrote, each divided as the one that `like` gives for its name.

    Raises:
        CheckpointError: files that are damaged.
    """
    reader = HuggingFaceStorageReader(str(folder))
    try:
        targets = {}
        for name, stored in reader.read_metadata().state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata)
            model = like(name)
            if isinstance(model, DTensor) and model.shape == stored.size:
                targets[name] = torch.zeros_like(model, dtype=stored.properties.dtype)
            else:
                targets[name] = torch.zeros(stored.size, dtype=stored.properties.dtype)
        load(targets, storage_reader=reader, no_dist=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = f"damaged, or not written by this version: {error}"
        raise CheckpointError(folder, "", what, hint="restore the folder, or train again in a new --out") from error
    return targets

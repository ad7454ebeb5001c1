"""Wan transformer checkpoints of every release, as one state dict in diffusers' names with its sizes.

Reads diffusers folders, original Wan files and folders, and the releases that `zoo.entries` lists. A tensor stays on
disk until it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError, warn
from astro_cli.models import nesting, retired
from astro_cli.models.tensor_files import INDEX, PICKLES, LazyState, LazyTensor, open_file, shard_names, some
from astro_cli.models.wan import keys, relatives, sizes
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.models.weights import check_state
from astro_cli.zoo.entries import of_path
from astro_cli.zoo.places import locate

STEM = "diffusion_pytorch_model"  # diffusers' and Wan's own name of a transformer's weights
STUDENT = "student.safetensors"  # a finished run's, with its card beside it
# Files that may hold a folder's transformer, the surest first; a folder is searched with `transformer/` before and
# `final/` after it.
PATTERNS = (
    f"{STEM}{INDEX}",
    f"{STEM}.safetensors",
    STUDENT,
    f"*{INDEX}",
    "*.safetensors",
    *(f"*{end}" for end in PICKLES),
)
SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
AMBIGUOUS = "no known release, so this is a guess; `astro zoo import` with --ema or --no-ema settles it"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Checkpoint:
    """A transformer's weights.

    Attributes:
        state: tensors by diffusers' names, each read when it is taken.
        config: sizes, from the shapes and, where there is one, config.json.
        source: the file, or the folder's index or file, they come from.
        format: container and names, for example "pickle, original names".
        nesting: the part of a torch.save file that was taken (generator_ema, generator, model, state_dict) or "flat".
        files: everything that was read, in the order of their names: shards, index, config.json.
    """

    state: LazyState
    config: WanConfig
    source: Path
    format: str
    nesting: str
    files: tuple[Path, ...]

    @property
    def parameters(self) -> int:
        return sum(tensor.numel for tensor in self.state.tensors.values())


def load_transformer(
    source: str | Path, *, config: WanConfig | None = None, dtype: torch.dtype | None = None, ema: bool | None = None
) -> Checkpoint:
    """A checkpoint, every name and shape checked; no tensor is read yet.

    Args:
        source: file or folder, one below the checkpoints folder, or a known release's name (`astro zoo list`).
        config: the sizes wanted; weights of another size are refused. Without it sizes come from the checkpoint alone.
        dtype: cast to on reading; default as stored (moving averages are stored in float32).
        ema: True takes the moving average only, False never; None takes it where there is one, but for releases that
            run without (Causal-Forcing's chunk-wise student). Where the file is of no known release and holds both, a
            warning says which is taken.

    Raises:
        CheckpointError: missing, truncated, unsafe, of unknown nesting, half a model, of another model or size.

    Source: the loaders in the released repositories. Deviations: None.
    """
    place = locate(source)
    _refuse_half(place)
    file, table = _pick(place)
    _refuse_half(file)
    retired.refuse(file)
    entry = of_path(file)
    order = nesting.order(ema, plain_first=entry is not None and entry.plain_first)
    hint = "leave --ema/--no-ema out" if ema is not None else "is it a transformer of this family?"
    content = open_file(file)
    wrapped, nested = nesting.unwrap(content, order, file, hint)
    if ema is None and entry is None and (others := nesting.others(content, nested)):
        warn(f"{file}: {nested} is taken, {', '.join(others)} left out: {AMBIGUOUS}")
    tensors, original = _renamed(wrapped, file)
    settled = sizes.settle(sizes.from_shapes(tensors, file), sizes.declared(table) if table else {}, config, file)
    check_state(tensors, expected(settled), file, "is the checkpoint complete, and of Wan 2.1 text-to-video?")
    container = "pickle" if file.suffix in PICKLES else "shards" if file.name.endswith(INDEX) else "safetensors"
    names = "original" if original else "diffusers"
    return Checkpoint(
        LazyState(tensors, file, dtype), settled, file, f"{container}, {names} names", nested, _files(file, table)
    )


def find(source: str | Path) -> Path:
    """The file or index `load_transformer` reads. Raises: CheckpointError: there is none."""
    return _pick(locate(source))[0]


def files(source: str | Path) -> tuple[Path, ...]:
    """All files `load_transformer` reads. Raises: CheckpointError: there are none."""
    return _files(*_pick(locate(source)))


def expected(config: WanConfig) -> dict[str, torch.Tensor]:
    """Names and shapes a checkpoint of these sizes has, on the meta device."""
    with torch.device("meta"):
        return CausalWan(config).state_dict()


@torch.no_grad()
def into(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Fill a module, one tensor at a time. A module on the meta device takes the tensors themselves, any other casts
    them to its own dtype.

    Raises:
        CheckpointError: names or shapes differ; the module is unchanged then.
    """
    fill(module, checkpoint.state, checkpoint.source)


@torch.no_grad()
def fill(module: nn.Module, state: Mapping[str, torch.Tensor], where: Path) -> None:
    """As `into`, from any state dict, for example one with a LoRA merged into it; `where` is what an error names."""
    own = module.state_dict()
    shapes = state.tensors if isinstance(state, LazyState) else state
    check_state(shapes, own, where)
    for name in own:
        owner, _, leaf = name.rpartition(".")
        holder = module.get_submodule(owner)
        if own[name].is_meta:
            setattr(holder, leaf, nn.Parameter(state[name], requires_grad=holder.get_parameter(leaf).requires_grad))
        else:
            holder.get_parameter(leaf).copy_(state[name])


def _refuse_half(place: Path) -> None:
    if half := relatives.half_of(place):
        raise CheckpointError(place, "", f"{half}, {relatives.EXPECTED}", hint="one of them alone is no model")


def _pick(path: Path) -> tuple[Path, Path | None]:
    """The file or index that holds the transformer, and the config.json or card that belongs to it."""
    file = path if path.is_file() else _in_folder(path)
    card = file.with_suffix(".json")
    if file.name == STUDENT and card.is_file():
        return file, card
    table = file.parent / "config.json"
    # Beside a lone file of another name may lie a config.json that is a neighbour's.
    whole = path.is_dir() or file.name.startswith(STEM)
    return file, table if whole and table.is_file() else None


def _in_folder(folder: Path) -> Path:
    for place in (folder / "transformer", folder, folder / "final"):
        for pattern in PATTERNS:
            files = sorted(path for path in place.glob(pattern) if not path.name.startswith("."))
            if files and all(SHARD.search(path.name) for path in files):
                raise CheckpointError(
                    place,
                    f"{STEM}{INDEX}",
                    f"missing: {len(files)} shards without their index",
                    hint="copy the index too",
                )
            if len(files) > 1:
                names = some([path.name for path in files])
                raise CheckpointError(
                    place, "", f"found {len(files)} files that may be the transformer: {names}", hint="name one of them"
                )
            if files:
                return files[0]
    what = "not a checkpoint: no safetensors and no torch.save file in it or its transformer/"
    raise CheckpointError(folder, "", what, hint="name a diffusers or Wan 2.1 folder, or a file")


def _renamed(wrapped: Mapping[str, LazyTensor], where: Path) -> tuple[dict[str, LazyTensor], bool]:
    """Tensors by diffusers' names, and whether they came under original ones.

    Raises:
        CheckpointError: two names mean one parameter, or a tensor is not floating-point.
    """
    tensors: dict[str, LazyTensor] = {}
    original = False
    for key, tensor in wrapped.items():
        plain = keys.plain(key)
        name = keys.to_diffusers(plain)
        if name in tensors:
            raise CheckpointError(
                where, key, f"a second tensor for {name}", hint="the file mixes two copies of the weights"
            )
        if tensor.dtype not in FLOATS:
            raise CheckpointError(where, key, f"stored as {tensor.dtype}, expected float32, float16 or bfloat16")
        tensors[name], original = tensor, original or name != plain
    return tensors, original


def _files(file: Path, table: Path | None) -> tuple[Path, ...]:
    shards = {file.parent / name for name in shard_names(file).values()} if file.name.endswith(INDEX) else set()
    return tuple(sorted({file, *shards, *([table] if table else [])}))

"""Files of tensors, read lazily: safetensors, sharded safetensors, torch.save. Code inside a file never runs."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from astro_cli.config import pointers
from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader, check_regular
from astro_cli.models.weights import checked, damaged, unreadable

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
INDEX = ".safetensors.index.json"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# What torch raises for a torch.save file that is cut off or overwritten, in either of its two formats.
BROKEN = (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
FOREIGN = re.compile(r"(?:GLOBAL |<class ')([\w.]+)")  # the name torch's weights_only reader refuses
PACKED_BYTES = 2**26  # of source code in a TorchScript archive; CLIP's have about 1 MB
SHOWN = 3  # names an error lists


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of a file: shape and dtype are known, `read` gives the values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()


class LazyState(Mapping[str, torch.Tensor]):
    """A state dict that reads a tensor from its file each time it is taken, in `dtype` (None: as stored). A number that
    is not finite, or not in `dtype`, is a CheckpointError that names `source`.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], source: Path, dtype: torch.dtype | None = None) -> None:
        self.tensors, self.source, self.dtype = tensors, source, dtype

    def __getitem__(self, key: str) -> torch.Tensor:
        return checked(self.tensors[key].read(), self.source, key, self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def of_tensor(value: torch.Tensor) -> LazyTensor:
    return LazyTensor(tuple(value.shape), value.dtype, lambda: value)


def open_file(path: Path) -> dict[str, Any]:
    """Contents of a tensor file or of a shard index; tensors lazy, a torch.save file's nesting kept.

    Raises:
        CheckpointError: not such a file, truncated, a shard missing, or a pickle with more than tensors in it.
    """
    if path.name.endswith(INDEX):
        return dict(open_shards(path))
    if path.suffix == ".safetensors":
        return dict(open_safetensors(path))
    if path.suffix in PICKLES:
        return open_pickle(path)
    ending = path.suffix or "no ending"
    raise CheckpointError(path, "", f"not a checkpoint: found {ending}, expected {', '.join(SUFFIXES)} or *{INDEX}")


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Raises: CheckpointError: truncated, not safetensors, or quantised weights."""
    handle = _opened(path)
    return {name: _slice(handle, name, path) for name in handle.keys()}  # noqa: SIM118 - a handle is no mapping


def header(path: Path) -> dict[str, str]:
    """Text metadata of a safetensors file; empty where there is none."""
    return _opened(path).metadata() or {}


def _opened(path: Path) -> Any:
    check_regular(path, CheckpointError)
    try:
        return safe_open(path, "pt")
    except OSError as error:
        raise unreadable(path, error) from error
    except SafetensorError as error:
        raise damaged(path, error) from error


def _slice(handle: Any, name: str, path: Path) -> LazyTensor:
    view = handle.get_slice(name)
    stored = view.get_dtype()
    if stored not in DTYPES:
        raise CheckpointError(
            path,
            name,
            f"stored as {stored}, expected one of {', '.join(DTYPES)}",
            hint="quantised weights are not read",
        )
    return LazyTensor(tuple(view.get_shape()), DTYPES[stored], lambda: handle.get_tensor(name))


def shard_names(index: Path) -> dict[str, str]:
    """Tensor name -> shard's file name of a safetensors index.

    Raises:
        CheckpointError: unreadable, no weight map, or it names files that are not there.
    """
    reader = Reader(CheckpointError, key="weight_map", what="not a shard index")
    places = reader.table(index).get("weight_map")
    if places is None:
        reader.fail(index, "expected JSON with this table")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(index, "weight_map", "expected tensor names with their shards")
    outside = sorted({name for name in places.values() if Path(name).name != name})
    missing = sorted({name for name in places.values() if not (index.parent / name).is_file()})
    if outside or missing:
        wrong, total = outside or missing, len(set(places.values()))
        what = f"names {len(wrong)} of {total} shards that are not in its folder: {some(wrong)}"
        raise CheckpointError(index, "weight_map", what, hint="copy all shards beside the index")
    return places


def open_shards(index: Path) -> dict[str, LazyTensor]:
    places = shard_names(index)
    shards = {name: open_safetensors(index.parent / name) for name in sorted(set(places.values()))}
    lost = [key for key, name in places.items() if key not in shards[name]]
    if lost:
        raise CheckpointError(
            index.parent / places[lost[0]], "", f"lacks {len(lost)} tensors its index promises: {some(lost)}"
        )
    return {key: shards[name][key] for key, name in places.items()}


def open_pickle(path: Path) -> dict[str, Any]:
    """A torch.save file through `weights_only`: tensors, numbers and containers, nothing else; memory-mapped where it
    is a zip archive.
    """
    check_regular(path, CheckpointError)
    zipped = is_archive(path)
    with path.open("rb") as file:
        start = file.read(2)
    if zipped:
        check_archive(path)
    if not zipped and start == b"PK":
        raise CheckpointError(
            path, "", f"truncated ({path.stat().st_size} bytes): its end is missing", hint="copy the file again"
        )
    if pointers.is_pointer(path):
        raise CheckpointError(path, "", pointers.WHAT, hint=pointers.HINT)
    if not zipped and start[:1] != b"\x80":  # every pickle protocol torch writes starts so
        raise CheckpointError(
            path, "", f"not a checkpoint ({path.stat().st_size} bytes): neither safetensors nor a torch.save file"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except BROKEN as error:
        raise CheckpointError(
            path, "", f"damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(path, "", f"holds a {type(content).__name__}, expected a dict of tensors")
    _check_sizes(path, content, path.stat().st_size)
    return {str(key): value for key, value in content.items()}


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, whole or not.

    Raises:
        CheckpointError: it says that it is one of several.
    """
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:
        raise CheckpointError(path, "", f"damaged: {error}", hint="copy the file again") from error


def check_archive(path: Path) -> None:
    """Refuse a zip archive whose parts unpack to far more bytes than it has. torch stores tensors as they are and packs
    source code only.

    Raises:
        CheckpointError: a damaged archive, or packed tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(path, "", f"damaged: {error}", hint="copy the file again") from error
    size = path.stat().st_size
    stored = sum(part.file_size for part in parts if part.compress_type == zipfile.ZIP_STORED)
    packed = sum(part.file_size for part in parts if part.compress_type != zipfile.ZIP_STORED)
    if stored > size or packed > PACKED_BYTES:
        what = f"a file of {size:,} bytes that unpacks to {stored + packed:,}, expected tensors that are not packed"
        raise CheckpointError(path, "", what, hint="no torch.save file is so; ask its author for safetensors")


def _check_sizes(path: Path, content: Any, size: int) -> None:
    """Refuse a tensor of more bytes than its file has: one that repeats a few values grows when it is read."""
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, torch.Tensor) and value.numel() * value.element_size() > size:
            what = f"{tuple(value.shape)} of {value.dtype} in a file of {size:,} bytes"
            raise CheckpointError(path, key, what, hint="ask its author for safetensors")
        if isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(f"{key}.{name}" if key else str(name), item) for name, item in items]


def _refused(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    name = FOREIGN.search(str(error))
    content = (
        f"holds {name[1]}: code or foreign objects, not plain tensors"
        if name
        else "is not a pickle of plain tensors, or damaged"
    )
    return CheckpointError(path, "", f"refused, nothing of it ran: it {content}", hint="ask its author for safetensors")


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

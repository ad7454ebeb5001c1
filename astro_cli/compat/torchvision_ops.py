"""Lets torchvision be imported beside a CPU build of torch. It takes effect when torchvision is imported and its
library does not load.

torchvision's wheels are CUDA builds: beside a CPU torch their library does not load, and the import dies on the first
operator that is described but not defined (`torchvision::nms`), which takes transformers, diffusers, peft, timm and
open_clip down with it. Defining the two operators that are described without a guard is enough for all that needs no
detector; calling one of them still fails, with torch's own message.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []  # a definition lives as long as its library object


def install() -> None:
    """Put the finder first, once; without effect when torchvision is imported already."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """torchvision's own loader, after the operators are there."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        _define_operators(Path(str(module.__spec__.origin)).parent)
        module.__spec__.loader = module.__loader__ = self.inner
        self.inner.exec_module(module)

    def __getattr__(self, name: str) -> Any:  # importlib.resources and inspect ask the loader for more
        return getattr(self.inner, name)


def _define_operators(folder: Path) -> None:
    """Load the real operators; where they do not load, define the schemas."""
    import torch

    library = next((path for path in sorted(folder.glob("_C*")) if path.suffix in (".so", ".pyd")), None)
    try:
        if library is None:
            raise OSError("no compiled operators")
        torch.ops.load_library(str(library))
    except OSError:
        fragment = torch.library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            fragment.define(schema)
        _kept.append(fragment)

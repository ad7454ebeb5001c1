"""Imports modules of the vbench package beside current libraries, in this process.

vbench 0.1.5 was written for numpy 1 and timm 0.9. The import of one of its modules supplies the names that it imports
but never calls here, and the vocabulary that it would fetch with wget. Afterwards timm's registry and the root logger
are restored.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from astro_cli.config.durable import written_whole
from astro_cli.config.errors import RunError
from eval.vbench.vbench_files import cache_folder

# What vbench imports at the top of its modules; a stand-in takes the place of one that is not here. numpy 2 dropped the
# first.
STAND_INS = {"numpy.lib.function_base": ("disp",), "decord": ("VideoReader", "cpu"), "imageio": ("imread", "imwrite")}
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


def module(name: str) -> ModuleType:
    """The package's module `vbench.<name>`, e.g. "utils" or "third_party.RAFT.core.raft".

    Raises:
        RunError: the package or something it imports is not here.
    """
    full = f"vbench.{name}"
    if full in sys.modules:
        return sys.modules[full]
    try:
        with _shims():
            if "ViCLIP" in name:
                _place_vocabulary()
            return importlib.import_module(full)
    except ImportError as error:
        raise RunError(
            "vbench",
            full,
            f"cannot be imported: {error}",
            hint="run `make setup`, which installs vbench and what it needs",
        ) from error


@contextmanager
def _shims() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    absent = [name for name in STAND_INS if name not in sys.modules and importlib.util.find_spec(name) is None]
    sys.modules.update({name: _stand_in(name) for name in absent})
    try:
        with _registry_untouched():
            yield
    finally:
        for name in absent:
            del sys.modules[name]
        root.setLevel(level)
        root.handlers[:] = handlers


def _stand_in(name: str) -> ModuleType:
    def never(*_: object, **__: object) -> None:
        raise RunError(
            "vbench",
            name,
            "not here, and a part of vbench that needs it was called",
            hint=f"install {name.partition('.')[0]}",
        )

    module = ModuleType(name)
    vars(module).update(dict.fromkeys(STAND_INS[name], never))
    return module


@contextmanager
def _registry_untouched() -> Iterator[None]:
    """timm's `create_model("vit_large_patch16_224")` makes timm's network, not the one that vbench registers under that
    name.
    """
    from timm.models import _registry as registry

    tables = [vars(registry)[name] for name in ("_model_entrypoints", "_model_to_module")]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.update(kept)


def _place_vocabulary() -> None:
    """CLIP's vocabulary, which ViCLIP's tokeniser looks for at import, copied from open_clip into the folder of
    weights.
    """
    import open_clip

    package = importlib.import_module("vbench.utils")
    vars(package)["CACHE_DIR"] = str(cache_folder())
    target = cache_folder() / "ViCLIP" / VOCABULARY
    if not target.is_file():
        with written_whole(target) as temporary:
            shutil.copyfile(Path(open_clip.__file__).parent / VOCABULARY, temporary)

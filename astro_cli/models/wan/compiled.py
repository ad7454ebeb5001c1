"""`torch.compile` for a streaming transformer: each block is one graph, its cache included.

The slots a pass writes and the rotations it applies reach a block as tensors (`astro_cli.cache.exchange`), so that the
graph of one block of a video serves the next ones too. Weights and results stay the same.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
import torch._dynamo

from astro_cli.config.errors import StreamError
from astro_cli.models.wan.transformer import CausalWan

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# A block has a graph for each kind of pass: alone, with a context before it or only a context; the window filling,
# full or moving on, with a sink that is written, follows or stays; the first layer, whose input lies otherwise in
# memory.
KINDS = 32


def compile_blocks(network: CausalWan, backend: str = "inductor", *, fullgraph: bool = False) -> None:
    """Compile the blocks in place; they are compiled when first called.

    Args:
        backend: of `torch.compile`.
        fullgraph: refuse a block that is not one graph.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, KINDS)
    network.compiled = True
    for block in network.blocks:
        block.compile(backend=backend, fullgraph=fullgraph)


def check_compiler(device: torch.device) -> None:
    """Refuse where there is nothing that compiles for this device.

    Raises:
        StreamError: no C++ compiler, or no Triton on a GPU.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device.type == "cuda" and not has_triton():
        raise StreamError("--compile", "", "there is no Triton for this GPU", hint="leave --compile out")
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        hint = "install g++ or clang (CXX names another one), or leave --compile out"
        raise StreamError("--compile", "", "there is no C++ compiler on this machine", hint=hint) from error


def check_cache_folder() -> Path:
    """The folder where the compiler keeps what it made, once it is known to take files.

    Raises:
        StreamError: it cannot be made or written.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    folder = Path(os.environ.get(CACHE_VARIABLE) or default_cache_dir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        what = f"the compiler cannot write its cache folder: {error.strerror}"
        hint = f"name one that can be written in {CACHE_VARIABLE}, or leave --compile out"
        raise StreamError(str(folder), "--compile", what, hint=hint) from error

"""The options that say how passes are computed, of `astro sample` and `astro bench sample`. `generate.acceleration`
carries them out.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astro_cli.commands.added_options import with_options

if TYPE_CHECKING:
    from astro_cli.generate.acceleration import Acceleration


Make = Callable[[], Any]  # makes the chosen `Acceleration`; the command line itself loads no torch


class AttentionKernel(StrEnum):
    auto = "auto"
    math = "math"
    flash = "flash"
    fa3 = "fa3"
    fa4 = "fa4"
    efficient = "efficient"
    cudnn = "cudnn"


class NumberFormat(StrEnum):
    same = "same"
    fp8 = "fp8"


class Noise(StrEnum):
    cpu = "cpu"
    device = "device"


OPTIONS: dict[str, tuple[Any, Any]] = {
    "attention": (
        Annotated[AttentionKernel, typer.Option(help="Attention kernel; checked against plain attention first.")],
        AttentionKernel.auto,
    ),
    "linear": (
        Annotated[
            NumberFormat, typer.Option(help="The blocks' linear layers: as they are, or FP8 (GPUs that have it).")
        ],
        NumberFormat.same,
    ),
    "kv": (
        Annotated[NumberFormat, typer.Option(help="Cached keys and values: as they are, or FP8.")],
        NumberFormat.same,
    ),
    "noise": (
        Annotated[Noise, typer.Option(help="Who draws it: cpu (the same on every machine) or device.")],
        Noise.cpu,
    ),
    "compile_": (Annotated[bool, typer.Option("--compile", help="Compile the transformer's blocks first.")], False),
    "graphs": (
        Annotated[bool, typer.Option("--graphs", help="Replay passes as CUDA graphs once the window is full.")],
        False,
    ),
}


def with_acceleration(function: Callable[..., None]) -> Callable[..., None]:
    """The command with these options as its last ones; it takes a function that makes their `acceleration`."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> None:
        chosen = {name: options.pop(name, default) for name, (_, default) in OPTIONS.items()}
        function(*arguments, acceleration=lambda: _acceleration(chosen), **options)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in OPTIONS.items()
    ]
    return with_options(command, function, added, instead_of="acceleration")


def _acceleration(chosen: dict[str, Any]) -> Acceleration:
    from astro_cli.generate.acceleration import Acceleration

    named = {name.rstrip("_"): value for name, value in chosen.items()}
    values: dict[str, Any] = {
        name: value.value if isinstance(value, StrEnum) else value for name, value in named.items()
    }
    return Acceleration(**values)

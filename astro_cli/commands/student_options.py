"""The options that name a student and how it streams, of `astro sample` and `astro bench sample`, and what they load.
The command line itself loads no torch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astro_cli.commands.limits import MOST_FRAMES
from astro_cli.commands.zoo import LORA_HELP

if TYPE_CHECKING:
    from astro_cli.generate.arm import Arm

DEFAULT_WEIGHTS = "shapes/causal_forcing"


class Dtype(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


WEIGHTS_HELP = f"Packaged base, run, checkpoint or release. Default: {DEFAULT_WEIGHTS}."
WINDOW_HELP = "Visible latent frames, sink and block included; 0: all."
WeightsOption = Annotated[str | None, typer.Option("--weights", "-w", help=WEIGHTS_HELP)]
LoraOption = Annotated[list[str] | None, typer.Option("--lora", metavar="SOURCE[:STRENGTH]", help=LORA_HELP)]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", "-r", help="Take sizes, sampler and cache from this recipe.")
]
WanOption = Annotated[str | None, typer.Option("--wan", help="Wan 2.1 folder with text encoder and VAE.")]
SizeOption = Annotated[
    str | None, typer.Option("--size", metavar="HEIGHTxWIDTH", help="Size in pixels. Default: as trained.")
]
StretchOption = Annotated[
    bool | None,
    typer.Option(
        "--stretch/--no-stretch", help="Positions of another --size cover the trained ones. Default: as trained."
    ),
]
WindowOption = Annotated[int | None, typer.Option("--window", min=0, max=MOST_FRAMES, help=WINDOW_HELP)]
SinkOption = Annotated[
    int | None, typer.Option("--sink", min=0, max=MOST_FRAMES, help="Latent frames that are never evicted.")
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Of the transformer and of Wan's other parts.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to run.")]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        "--decoder", metavar="PATH", help="Smaller decoder in place of the codec's; on Wan such as taew2_1.pth."
    ),
]


def cache_fields(window: int | None, sink: int | None, **others: Any) -> dict[str, Any]:
    """The cache's fields that the options set; a window of 0 is none."""
    given = {"sink": sink, **others}
    fields = {key: value for key, value in given.items() if value is not None}
    return fields if window is None else fields | {"window": window or None}


def load(
    weights: str | None,
    recipe: str | None,
    lora: list[str] | None,
    wan: str | None,
    dtype: Dtype,
    device: Device,
    cache: dict[str, Any],
    acceleration: Any,
    decoder: str | None,
) -> Arm:
    """What the options of `astro sample` and `astro bench sample` name."""
    import torch

    from astro_cli.generate.arm import load_arm
    from astro_cli.training.build import pick_device

    where = pick_device(device.value)
    name = weights or (DEFAULT_WEIGHTS if recipe is None and wan is None else None)
    kind = {Dtype.fp32: torch.float32, Dtype.bf16: torch.bfloat16}[dtype]
    return load_arm(
        name,
        recipe=recipe,
        lora=lora or (),
        wan=wan,
        dtype=kind,
        device=where,
        cache=cache,
        acceleration=acceleration,
        decoder=decoder,
    )


def resize(arm: Arm, size: str | None, *, stretch: bool | None = None) -> Arm:
    """As `generate.sizes.resized`."""
    from astro_cli.generate.sizes import resized  # torch, which --help does without

    return resized(arm, size, stretch=stretch)

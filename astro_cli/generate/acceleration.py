"""How a student's passes are computed: attention kernel, number formats, graphs. Owns the choices, their refusal on a
machine that lacks them, and what a sidecar or record says about them.

`attention`, `compile` and `graphs` change results by rounding only. `linear`, `kv` and `noise` make other videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from astro_cli.config.errors import StreamError
from astro_cli.models.wan import backends, compiled, float8
from astro_cli.rollout.captured import Captured

if TYPE_CHECKING:
    from astro_cli.models.wan.transformer import CausalWan

Format = Literal["same", "fp8"]


@dataclass(frozen=True)
class Acceleration:
    """Choices for a student on a device.

    Attributes:
        attention: see `backends`.
        linear: the blocks' linear layers as they are, or in FP8 (`float8`).
        kv: cached keys and values as they are, or in FP8 (`cache.exchange.Stored`).
        noise: drawn on the CPU, the same on every machine, or on the device.
        compile: `torch.compile` the blocks.
        graphs: replay the passes of a full window as CUDA graphs (`rollout.captured`).
    """

    attention: backends.Name = "auto"
    linear: Format = "same"
    kv: Format = "same"
    noise: Literal["cpu", "device"] = "cpu"
    compile: bool = False
    graphs: bool = False

    def refuse(self, device: torch.device) -> None:
        """Refuse what a device cannot do, before weights are read.

        Raises:
            StreamError: FP8 products or graphs on a device without them, a compiler that cannot keep what it makes.
        """
        if self.linear == "fp8":
            float8.refuse_without(device)
        if self.graphs and device.type != "cuda":
            what = f"found a device of type {device.type}, expected a CUDA GPU: passes are recorded as CUDA graphs"
            raise StreamError("--graphs", "", what, hint="leave --graphs out")
        if self.compile:
            compiled.check_compiler(device)
            compiled.check_cache_folder()

    def refuse_teacher(self, name: str) -> None:
        """Refuse what only a stream has.

        Raises:
            StreamError: with the option.
        """
        usual = Acceleration()
        for key in ("kv", "noise", "graphs"):
            if getattr(self, key) != getattr(usual, key):
                what = f"{name} is a multi-step teacher, which does not stream: it would have no effect"
                raise StreamError(f"--{key}", "", what, hint=f"leave --{key} out, or sample a student")

    def prepare(self, network: CausalWan) -> dict[str, float]:
        """Make a network compute so; returns the errors measured on the way: the attention kernel's largest difference
        from plain attention, the largest relative error of an FP8 layer.

        Raises:
            StreamError: a kernel that is not there or computes wrongly, layers that FP8 products do not take.
        """
        config, errors = network.config, dict[str, float]()
        if self.attention != "auto":
            sizes = config.num_heads, config.head_dim
            errors["attention_error"] = backends.check(self.attention, *sizes, network.dtype, network.device)
        if self.linear == "fp8":
            errors["linear_error"] = float8.convert(network)
        if self.compile:
            compiled.compile_blocks(network)
        return errors

    @contextmanager
    def on(self) -> Iterator[None]:
        """What holds for a whole process while a stream runs."""
        with backends.using(self.attention):
            yield

    def runner(self, network: CausalWan) -> Captured | None:
        """What runs a stream's passes in place of its network."""
        return Captured(network) if self.graphs else None

    def facts(self) -> dict[str, Any]:
        """What decides what a video shows, where it is not the default; part of the video's name."""
        chosen = {"attention": self.attention, "linear": self.linear, "kv": self.kv, "noise": self.noise}
        usual = Acceleration()
        return {key: value for key, value in chosen.items() if value != getattr(usual, key)}

    def protocol(self) -> dict[str, Any]:
        """All of it, for a record of speed."""
        return {
            "attention": self.attention,
            "linear": self.linear,
            "kv": self.kv,
            "noise": self.noise,
            "compile": self.compile,
            "graphs": self.graphs,
        }


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

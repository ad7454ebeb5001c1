"""Counts what makes the host wait in a block of a stream, on a device that is only pretended: its tensors have shapes
and no numbers, and a build without CUDA has it.

Run by itself (`python -m tests.host_steps`), since torch keeps such a device for the rest of the process. Prints JSON:
counts by cache and number of blocks, and those of steps that wait.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import Streamer, StreamSpec

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
STEPS = warp_timesteps((1000, 500), 4.0)
CACHES = [
    CacheSpec(window=6, sink=2),
    CacheSpec(window=6, sink=2, relative=True),
    CacheSpec(window=6, sink=2, relative=True, policy="ema", alpha=0.5),
    CacheSpec(window=4),
]
BLOCKS = (1, 2, 3, 6)


def spec(cache: CacheSpec, **more) -> StreamSpec:
    return StreamSpec(STEPS, 2, (2, 4, 4), cache, **more)


class HostSteps(TorchDispatchMode):
    """Counts what makes the host wait for the device: numbers read from it, shapes that depend on its numbers, copies
    to and from it.
    """

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "item", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.__name__.split(".")[0], kwargs or {}
        result = func(*args, **kwargs)
        if any(word in name for word in self.WAITING):
            self.counts[name] += 1
        if name in ("_to_copy", "copy_") and isinstance(result, torch.Tensor):
            source = args[1] if name == "copy_" else args[0]
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if source.device.type != result.device.type and blocking:
                self.counts[f"{source.device.type} to {result.device.type}"] += 1
        return result


def host_steps(gpu: torch.device, streamed: StreamSpec, blocks: int) -> Counter[str]:
    """Of the last of so many blocks."""
    with FakeTensorMode() as fake, gpu:
        streamed = replace(streamed, steps=fake.from_tensor(streamed.steps))
        network = CausalWan(TINY).eval().requires_grad_(False)
        states = network.encode_text(torch.zeros(1, 4, 5))
        streamer = Streamer(network, states, [3], streamed)
        for _ in range(blocks - 1):
            streamer.next_block()
        with HostSteps() as counted:
            x0 = streamer.next_block()
        assert x0.device.type == gpu.type
    return counted.counts


def waiting(gpu: torch.device) -> Counter[str]:
    """Of steps that do wait, so that the counter is known to see them."""
    with FakeTensorMode(), gpu, HostSteps() as counted:
        device = torch.ones(2)
        device.to("cpu")
        torch.ones(2, device="cpu").to(gpu)
        for read in (lambda: int(device.sum()), device.nonzero):
            try:
                read()
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                counted.counts[type(error).__name__] += 1
    return counted.counts


@torch.no_grad()
def main() -> None:
    _setup_privateuseone_for_python_backend("pretended")
    gpu = torch.device("pretended")
    counts = {
        f"{place} {blocks}": host_steps(gpu, spec(cache, noise="device"), blocks)
        for place, cache in enumerate(CACHES)
        for blocks in BLOCKS
    }
    print(json.dumps({"blocks": counts, "waiting": waiting(gpu)}))


if __name__ == "__main__":
    main()

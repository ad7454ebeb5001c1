"""A sharded CausalWan (two gloo processes on CPU) streams, encodes text and trains as the whole one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import StreamSpec
from astro_cli.rollout.streaming import stream

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SPEC = StreamSpec(warp_timesteps((1000, 500), 4.0), 2, (2, 4, 4), CacheSpec(window=6, sink=2))


def rollout(network: CausalWan) -> tuple[torch.Tensor, torch.Tensor]:
    """A video with gradients through its exit steps, and the gradient of one weight inside a block and of one
    outside.
    """
    states = network.encode_text(torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(7)))
    video = torch.cat(list(stream(network, states, [3], SPEC, 10, gradient=True)), 1)
    video.pow(2).sum().backward()
    grads = [network.blocks[0].attn1.to_q.weight.grad, network.proj_out.weight.grad]
    return video.detach(), torch.cat(
        [(grad.full_tensor() if hasattr(grad, "full_tensor") else grad).flatten() for grad in grads]
    )


def work(rank: int, meeting: Path, failures) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    from astro_cli.models.wan.sharding import shard

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=meeting.as_uri(), rank=rank, world_size=2
    )  # a file: two suites may run side by side
    torch.manual_seed(0)
    whole = CausalWan(TINY)
    sharded = CausalWan(TINY)
    sharded.load_state_dict(whole.state_dict())
    sharded.gradient_checkpointing = True
    shard(sharded, init_device_mesh("cpu", (2,)))
    local = sharded.blocks[0].attn1.to_q.weight.to_local()
    for name, found, expected in zip(("video", "gradients"), rollout(sharded), rollout(whole), strict=True):
        if not torch.allclose(found, expected, atol=1e-4, rtol=1e-4):
            failures.put(f"{name}: {(found - expected).abs().max().item()}")
    if local.numel() * 2 != whole.blocks[0].attn1.to_q.weight.numel():
        failures.put(f"a process holds {local.numel()} values of a weight")
    dist.destroy_process_group()


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this build of torch has no gloo")
def test_two_processes_stream_and_train_as_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    failures = context.SimpleQueue()
    multiprocessing.spawn(work, args=(tmp_path / "meeting", failures), nprocs=2)
    found = [failures.get() for _ in range(4) if not failures.empty()]
    assert not found

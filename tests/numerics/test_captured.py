"""The GPU path as far as a CPU takes it: passes as fixed lists of operations on fixed memory, blocks as whole graphs,
no step of the host in between.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from astro_cli.models.wan.compiled import compile_blocks
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.captured import Captured, Work
from astro_cli.rollout.engine import Streamer, StreamSpec, new_cache
from tests.host_steps import BLOCKS, CACHES, TINY, spec


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval().requires_grad_(False)


def text(seed: int = 7) -> torch.Tensor:
    return torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(seed))


def operations(work: Work) -> Work:
    """The operations of a computation on the memory it was traced with: what a CUDA graph keeps of it. Tracing runs it,
    so the memory is put back.
    """
    memory = list(work.__self__.fixed.tensors())  # type: ignore[attr-defined]
    layers = [*work.__self__.fixed.earlier, *work.__self__.fixed.later]  # type: ignore[attr-defined]
    for layer in layers:
        memory += [layer.keys.data, layer.values.data, *(s for s in (layer.sink_k, layer.sink_v) if s is not None)]
    before = [tensor.clone() for tensor in memory]
    graph = make_fx(lambda: work())()
    for tensor, old in zip(memory, before, strict=True):
        tensor.copy_(old)
    return graph


def videos(
    model: CausalWan, streamed: StreamSpec, blocks: int = 8, *, switch: bool = True, **kinds
) -> list[torch.Tensor]:
    """Blocks of a stream whose prompt changes before the last but one."""
    cache = new_cache(model, 2, streamed, None)
    cache.indexed = True
    streamer = Streamer(model, model.encode_text(text()), [3, 4], streamed, cache=cache, **kinds)
    made = []
    for block in range(blocks):
        if switch and block == blocks - 2:
            streamer.switch(model.encode_text(text(8)))
        made.append(streamer.next_block())
    return made


@torch.no_grad()
@pytest.mark.parametrize("cache", CACHES)
def test_replayed_passes_make_the_same_video(model, cache):
    captured = Captured(model, operations)
    plain, replayed = videos(model, spec(cache)), videos(model, spec(cache), run=captured)
    assert all(torch.equal(*pair) for pair in zip(plain, replayed, strict=True))
    # A window of 3 blocks is full in block 2, and for the context of the block before in block 3. Blocks 3 and 4 run as
    # they are (WARM); of blocks 5 to 7 all passes are replayed, but for the first after the switch.
    assert captured.replayed >= 2 * 3 - 1


@torch.no_grad()
def test_a_replay_reads_only_what_it_was_given(model):
    """The recording holds no frame number: a later block replays it with other tensors."""
    captured = Captured(model, operations)
    made = videos(model, spec(CACHES[1]), switch=False, run=captured)
    assert not torch.equal(made[-1], made[-2])
    assert len(captured._graphs) == 2  # the first pass of a block, and the others


@torch.no_grad()
@pytest.mark.parametrize("cache", CACHES[1:3])
def test_a_block_compiles_whole(model, cache):
    """`fullgraph` refuses any break, the cache's exchange included. All kinds of passes have come by block 4, so later
    blocks compile nothing: frame numbers and layers are in no graph.
    """
    compiled, known = copy.deepcopy(model), 0
    torch._dynamo.reset()
    compile_blocks(compiled, "eager", fullgraph=True)
    counters = torch._dynamo.utils.counters
    counters.clear()
    plain = videos(model, spec(cache), 6, switch=False)
    streamer = Streamer(compiled, compiled.encode_text(text()), [3, 4], spec(cache))
    assert streamer.cache.indexed
    for block, expected in enumerate(plain):
        torch.testing.assert_close(streamer.next_block(), expected, atol=1e-5, rtol=0)
        if block == 4:
            known = counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] == known > 0
    assert not counters["graph_break"]


@pytest.fixture(scope="module")
def counted() -> dict[str, dict]:
    """Counts of `tests.host_steps`, in a process of its own."""
    command, root = [sys.executable, "-m", "tests.host_steps"], Path(__file__).parents[2]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("place", range(len(CACHES)))
@pytest.mark.parametrize("blocks", BLOCKS)
def test_no_step_of_the_host_in_a_block(counted, place, blocks):
    """With noise from the device a block runs from its first to its last kernel without the host waiting, while the
    window fills and after it.
    """
    assert counted["blocks"][f"{place} {blocks}"] == {}


def test_the_counter_sees_waiting(counted):
    seen = counted["waiting"]
    assert (seen["pretended to cpu"], seen["cpu to pretended"]) == (1, 1)
    assert (seen["DataDependentOutputException"], seen["DynamicOutputShapeException"]) == (1, 1)

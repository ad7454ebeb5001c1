"""`astro sample --compile`: compiled blocks give what the plain ones give, through a cache that fills, evicts and
rotates its sink anew.
"""

from __future__ import annotations

import copy
import shutil

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.compiled import compile_blocks
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import StreamSpec
from astro_cli.rollout.streaming import generate

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
STEPS = warp_timesteps((1000, 500), 4.0)

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU"
)


@torch.no_grad()
def test_compiled_blocks_stream_the_same_video():
    torch.manual_seed(0)
    model = CausalWan(TINY).eval().requires_grad_(False)
    compiled = copy.deepcopy(model)
    compile_blocks(compiled)
    text = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(7))
    spec = StreamSpec(STEPS, 2, (2, 4, 4), CacheSpec(window=4, sink=1, relative=True))
    torch._dynamo.reset()
    torch.testing.assert_close(
        generate(compiled, text, [1], spec, 8), generate(model, text, [1], spec, 8), atol=1e-4, rtol=0
    )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it did compile

"""Spatial positions stretched to another size: nothing changes at scale 1, and a finer picture lies where a coarse one
does.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astro_cli.cache.spec import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.rope import rope_table
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import Streamer, frame_noise
from astro_cli.rollout.next_frame import NextFrameStreamer, forced_velocity, recycled_input, segment_cache
from astro_cli.rollout.spec import StreamSpec
from astro_cli.rollout.streaming import generate

CPU = torch.device("cpu")
TINY = WanConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, extra_channels=2, freq_dim=8, text_dim=5, text_len=4
)


def network(config: WanConfig = TINY) -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(config)


def text(model: CausalWan):
    return model.encode_text(torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (30, 52)])
def test_stretched_to_its_own_size_a_table_has_the_same_bits(grid):
    rows, columns = grid
    plain = rope_table([0, 3, 4], rows, columns, 24, CPU)
    stretched = rope_table([0, 3, 4], rows, columns, 24, CPU, grid)
    assert torch.equal(plain.cos, stretched.cos)
    assert torch.equal(plain.sin, stretched.sin)


def test_at_three_halves_of_the_size_every_third_row_lies_on_every_second():
    coarse = rope_table([2, 5], 4, 6, 24, CPU).cos.unflatten(0, (2, 4, 6))
    fine = rope_table([2, 5], 6, 9, 24, CPU, (4, 6)).cos.unflatten(0, (2, 6, 9))
    # row 3 of 6 stands at 3 x 4 / 6 = 2, column 6 of 9 at 6 x 6 / 9 = 4
    assert torch.allclose(fine[:, ::3, ::3], coarse[:, ::2, ::2], atol=1e-6)
    assert not torch.allclose(fine[:, 1:2], coarse[:, 1:2, :1], atol=1e-3)


def test_time_is_not_stretched():
    coarse, fine = rope_table([7], 4, 4, 24, CPU), rope_table([7], 8, 8, 24, CPU, (4, 4))
    pairs = 24 // 2 - 2 * (24 // 6)  # those of time
    assert torch.equal(coarse.cos[0, :pairs], fine.cos[0, :pairs])
    assert torch.equal(coarse.sin[0, :pairs], fine.sin[-1, :pairs])


@torch.no_grad()
def test_a_network_of_the_trained_size_predicts_the_same_bits():
    model = network()
    x, timestep = torch.randn(2, 3, 4, 8, 8), torch.full((2, 3), 500.0)
    plain = model(x, timestep, text(model))
    model.span = (4, 4)  # 8 x 8 cells in patches of 2
    assert torch.equal(plain, model(x, timestep, text(model)))
    model.span = (3, 3)
    assert not torch.equal(plain, model(x, timestep, text(model)))


@pytest.mark.parametrize("cache", [CacheSpec(), CacheSpec(window=4, sink=1, relative=True)])
@torch.no_grad()
def test_one_pass_and_both_caches_agree_at_another_size(cache):
    """All places that rotate keys stretch alike, the moved sink's too."""
    model, frames, shape = network(), 6, (2, 12, 12)
    model.span = (4, 4)
    given = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(2))
    spec = StreamSpec(warp_timesteps((1000,), 24.0), 1, shape, cache, given=given, recycle="previous")
    rolled = NextFrameStreamer(model, text(model), [5, 6], spec, frames)
    grown = NextFrameStreamer(model, text(model), [5, 6], spec, frames, cache=segment_cache(model, spec))
    made = []
    for _ in range(frames - 1):
        made.append(rolled.next_block())
        assert torch.allclose(made[-1], grown.next_block(), atol=1e-5)
    if cache.window is None:
        whole = torch.cat([given, *made], 1)
        noise = frame_noise(spec, [5, 6], range(1, frames), "x_T", CPU)
        timestep = torch.full((2, frames - 1), 1000.0)
        v = forced_velocity(model, noise, timestep, text(model), recycled_input(whole, "previous"), None, 0)
        assert torch.allclose(noise - v, whole[:, 1:], atol=1e-5)


@torch.no_grad()
def test_a_rollout_and_a_stream_agree_at_another_size():
    """Training's rollouts have caches of their own."""
    model = network(TINY.model_copy(update={"extra_channels": 0}))
    model.span = (4, 4)
    cache = CacheSpec(window=4, sink=2, relative=True)
    spec = StreamSpec(warp_timesteps((1000, 500), 4.0), 2, (2, 12, 12), cache)
    states = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    streamer = Streamer(model, model.encode_text(states), [5, 6], spec, 6)
    streamed = torch.cat([streamer.next_block() for _ in range(3)], 1)
    assert torch.allclose(generate(model, states, [5, 6], replace(spec), 6), streamed, atol=1e-5)

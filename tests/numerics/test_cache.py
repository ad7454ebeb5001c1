"""Cached generation: one teacher-forcing pass reproduces it; windows, slots and batches do not change what is seen."""

import pytest
import torch

from astro_cli.cache.context import FrozenContext
from astro_cli.cache.kv import CacheSpec, KVCache
from astro_cli.cache.sinks.ema import EmaSink
from astro_cli.config.errors import RecipeError
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.streaming import StreamSpec, generate

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE = (2, 4, 4)


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval().requires_grad_(False)


def text(size: int) -> torch.Tensor:
    return torch.randn(size, 4, 5, generator=torch.Generator().manual_seed(7))


def spec(window: int | None = None, sink: int = 0, relative: bool = False, block: int = 2) -> StreamSpec:
    return StreamSpec(warp_timesteps((1000, 500), 4.0), block, SHAPE, CacheSpec(window, sink, relative))


@pytest.mark.parametrize(("window", "sink"), [(None, 0), (4, 0), (6, 2)])
def test_one_teacher_forcing_pass_reproduces_cached_predictions(model, window, sink):
    clean = generate(model, text(2), [1, 2], spec(window, sink), 8)
    states = model.encode_text(text(2))
    x_t = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    timestep = torch.full((2, 8), 500.0)
    context = FrozenContext(model, states, clean, 2, window, sink)
    at_once = context.velocity(model, x_t, timestep, states)
    cache = KVCache(layers=2, batch=2, heads=2, head_dim=12, grid=(2, 2), spec=CacheSpec(window, sink), max_frames=8)
    for start in range(0, 8, 2):
        rows = slice(start, start + 2)
        read = cache.begin(start, 2, write=False)
        v = model(x_t[:, rows], timestep[:, rows], states, positions=read.positions, cache=read)
        assert torch.allclose(v, at_once[:, rows], atol=2e-5)
        write = cache.begin(start, 2, write=True)
        model(clean[:, rows], torch.zeros(2, 2), states, positions=write.positions, cache=write, context_only=True)


def test_reading_equals_writing(model):
    """A pass that reads (for gradients) sees what a pass that writes sees, also when it evicts."""
    states = model.encode_text(text(1))
    for relative in (False, True):
        cache = KVCache(layers=2, batch=1, heads=2, head_dim=12, grid=(2, 2), spec=CacheSpec(6, 2, relative))
        for start in range(0, 12, 2):
            x = torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(start))
            t = torch.full((1, 2), 300.0)
            results = []
            for write in (False, True):
                plan = cache.begin(start, 2, write=write)
                results.append(model(x, t, states, positions=plan.positions, cache=plan))
            assert torch.allclose(*results, atol=1e-6)


def test_a_window_as_long_as_the_video_is_no_window(model):
    assert torch.equal(generate(model, text(1), [3], spec(8), 8), generate(model, text(1), [3], spec(None), 8))


def test_a_batch_equals_its_samples(model):
    together = generate(model, text(3), [5, 6, 7], spec(6, 2), 10)
    for row, seed in enumerate((5, 6, 7)):
        alone = generate(model, text(3)[row : row + 1], [seed], spec(6, 2), 10)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


def test_memory_does_not_grow_and_positions_stay_in_the_window(model):
    cache = KVCache(layers=2, batch=1, heads=2, head_dim=12, grid=(2, 2), spec=CacheSpec(6, 2, relative=True))
    # bytes = 2 (k, v) x 2 layers x 2 heads x 6 frames x 4 tokens x 12 wide x 4 bytes
    assert cache.bytes == 2 * 2 * 2 * 6 * 4 * 12 * 4
    for start in range(0, 400, 2):
        plan = cache.begin(start, 2, write=True)
        assert max(plan.positions) <= 5
    assert cache.bytes == 2 * 2 * 2 * 6 * 4 * 12 * 4
    assert cache.visible(400) == [0, 1, 396, 397, 398, 399]


def test_ring_slots_by_hand():
    # 6 slots, sink 2: frames 0, 1 stay in 0, 1; frames 2..5 in 2..5; frame 6 takes slot 2 again, frame 9 slot 5
    cache = KVCache(layers=1, batch=1, heads=1, head_dim=2, grid=(1, 1), spec=CacheSpec(6, 2))
    assert [cache.slot(frame) for frame in range(10)] == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5]


def test_ema_alpha_one_is_a_fixed_sink_and_half_by_hand():
    sink, evicted = torch.full((1, 1, 2, 1), 4.0), torch.full((1, 1, 2, 1), 2.0)
    assert torch.equal(EmaSink(1.0).update("k", sink, evicted), sink)
    # .5 * 4 + .5 * 2 = 3, then .5 * 3 + .5 * 2 = 2.5
    policy = EmaSink(0.5)
    assert policy.update("k", sink, evicted)[0, 0, 0, 0] == 3.0
    assert policy.update("k", sink, evicted)[0, 0, 0, 0] == 2.5


def test_ema_keeps_float32_under_bfloat16():
    """alpha .999 in bfloat16 alone would not move; the running sink does (reference, section 6.1)."""
    policy = EmaSink(0.999)
    sink, evicted = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16), torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
    for _ in range(40):
        last = policy.update("k", sink, evicted)
    assert abs(last.item() - 0.999**40) < 4e-3


def test_a_window_too_small_for_sink_and_block_is_refused():
    with pytest.raises(RecipeError, match="cannot hold the sink"):
        CacheSpec(4, 2).check(3)

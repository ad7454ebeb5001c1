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
STEPS = warp_timesteps((1000, 500), 4.0)


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval().requires_grad_(False)


def text(size: int) -> torch.Tensor:
    return torch.randn(size, 4, 5, generator=torch.Generator().manual_seed(7))


def spec(window: int | None = None, sink: int = 0, relative: bool = False, block: int = 2) -> StreamSpec:
    return StreamSpec(STEPS, block, SHAPE, CacheSpec(window=window, sink=sink, relative=relative))


@pytest.mark.parametrize(("window", "sink"), [(None, 0), (4, 0), (6, 2)])
def test_one_teacher_forcing_pass_reproduces_cached_predictions(model, window, sink):
    clean = generate(model, text(2), [1, 2], spec(window, sink), 8)
    states = model.encode_text(text(2))
    x_t = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    timestep = torch.full((2, 8), 500.0)
    context = FrozenContext(model, states, clean, 2, window, sink)
    at_once = context.velocity(model, x_t, timestep, states)
    cache = KVCache(
        layers=2, batch=2, heads=2, head_dim=12, grid=(2, 2), spec=CacheSpec(window=window, sink=sink), max_frames=8
    )
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
        cache = KVCache(
            layers=2, batch=1, heads=2, head_dim=12, grid=(2, 2), spec=CacheSpec(window=6, sink=2, relative=relative)
        )
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


def test_memory_does_not_grow_over_ten_thousand_frames():
    cache = KVCache(
        layers=2, batch=1, heads=2, head_dim=12, grid=(2, 2), spec=CacheSpec(window=6, sink=2, relative=True)
    )
    # bytes = 2 (k, v) x 2 layers x 2 heads x 6 frames x 4 tokens x 12 wide x 4 bytes; the sink's un-rotated keys: 1 x 2
    # x 2 x 2 x 4 x 12 x 4
    sizes = {(cache.bytes, cache.sink_bytes)}
    for start in range(0, 10_000, 2):
        cache.begin(start, 2, write=True)
        sizes.add((cache.bytes, cache.sink_bytes))
    assert sizes == {(2 * 2 * 2 * 6 * 4 * 12 * 4, 2 * 2 * 2 * 4 * 12 * 4)}
    assert cache.visible(10_000) == [0, 1, 9996, 9997, 9998, 9999]
    # the window's keys keep their frame numbers 9996 .. 9999, so the sink goes to 9994, 9995: distances are those of
    # places 0 .. 5
    assert cache.sink_position(10_000) == 9994


def test_ring_slots_by_hand():
    # 6 slots, sink 2: frames 0, 1 stay in 0, 1; frames 2..5 in 2..5; frame 6 takes slot 2 again, frame 9 slot 5
    cache = KVCache(layers=1, batch=1, heads=1, head_dim=2, grid=(1, 1), spec=CacheSpec(window=6, sink=2))
    assert [cache.slot(frame) for frame in range(10)] == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5]


def test_ema_values_by_hand():
    sink, evicted = torch.full((1, 1, 2, 1), 4.0), torch.full((1, 1, 2, 1), 2.0)
    assert torch.equal(EmaSink(1.0).update(sink, evicted), sink)
    # .5 * 4 + .5 * 2 = 3, then .5 * 3 + .5 * 2 = 2.5
    once = EmaSink(0.5).update(sink, evicted)
    assert once[0, 0, 0, 0] == 3.0
    assert EmaSink(0.5).update(once, evicted)[0, 0, 0, 0] == 2.5


def test_ema_alpha_one_streams_as_a_fixed_sink(model):
    for relative in (False, True):
        fixed, ema = (
            StreamSpec(STEPS, 2, SHAPE, CacheSpec(window=6, sink=2, relative=relative, policy=policy, alpha=1.0))
            for policy in ("fixed", "ema")
        )
        assert torch.allclose(
            generate(model, text(2), [1, 2], fixed, 16), generate(model, text(2), [1, 2], ema, 16), atol=1e-6
        )


def fill(cache: KVCache, start: int, value: float) -> None:
    """Write a frame whose values are all `value`; its keys too, before rotation."""
    plan = cache.begin(start, 1, write=True)
    block = torch.full((1, 1, 1, 6), value, dtype=cache.k[0].dtype)
    for layer in plan:
        layer.exchange(block, block, cache.table([start]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_ema_blends_keys_before_rotation_and_keeps_float32(dtype, tolerance):
    """Reward Forcing's alpha .999 (arXiv 2512.04678) would stay at 1 in bfloat16; the float32 sink moves."""
    spec = CacheSpec(window=3, sink=1, relative=True, policy="ema", alpha=0.999)
    cache = KVCache(layers=1, batch=1, heads=1, head_dim=6, grid=(1, 1), spec=spec, dtype=dtype)
    fill(cache, 0, 1.0)
    for frame in range(1, 43):
        fill(cache, frame, 0.0)
    # frames 1 .. 40 have left the window of sink, frame 41 and frame 42: 40 updates by zeros
    k, v = cache.chronological(0)
    assert cache.sink_v[0].dtype == torch.float32
    for found in (k, v):
        assert abs(found[0, 0, 0].float() - 0.999**40).max() < tolerance


def test_ema_folds_other_lengths_frame_by_frame():
    """Sink of 2, single frames leave: frame 2 goes into sink frame 0, frame 3 into 1, frame 4 into 0."""
    cache = KVCache(
        layers=1,
        batch=1,
        heads=1,
        head_dim=6,
        grid=(1, 1),
        spec=CacheSpec(window=3, sink=2, relative=True, policy="ema", alpha=0.5),
    )
    for frame, value in enumerate((8.0, 4.0, 2.0, 6.0, 1.0, 0.0)):
        fill(cache, frame, value)
    # sink 0: 8 -> (8 + 2)/2 = 5 -> (5 + 1)/2 = 3; sink 1: 4 -> (4 + 6)/2 = 5
    assert torch.allclose(cache.chronological(0)[1][0, 0, :, 0], torch.tensor([3.0, 5.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize(
    ("window", "sink", "block", "key", "word"),
    [
        (4, 2, 3, "window", "cannot hold the sink"),
        (6, 6, 3, "sink", "fewer frames than the window"),
        (6, 9, 3, "sink", "fewer frames"),
        (8, 2, 3, "window", "a multiple of the block"),
        (None, -1, 3, "sink", "0 or more"),
    ],
)
def test_caches_that_cannot_stream_are_refused(window, sink, block, key, word):
    with pytest.raises(RecipeError, match=word) as caught:
        CacheSpec().model_copy(update={"window": window, "sink": sink}).check(block)
    assert caught.value.key == key


def test_windows_that_can_stream_pass():
    for window, sink, block in ((9, 3, 3), (6, 3, 3), (12, 3, 3), (15, 3, 3), (8, 2, 4), (5, 2, 1), (None, 3, 3)):
        CacheSpec(window=window, sink=sink).check(block)
    CacheSpec(window=9, sink=1).check(4, first_frame_alone=True)  # one frame and two blocks

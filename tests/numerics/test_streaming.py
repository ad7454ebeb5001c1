"""The streaming engine: what it makes depends on nothing but prompt, seed and spec, and its gradients survive a rolling
cache.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astro_cli.cache.kv import CacheSpec, KVCache
from astro_cli.config.errors import RecipeError, StreamError
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.masks import teacher_forcing_mask
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import Streamer, StreamSpec
from astro_cli.rollout.streaming import generate, stream
from bench.plain_loop import PlainLoop

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE, GRID = (2, 4, 4), (2, 2)
STEPS = warp_timesteps((1000, 500), 4.0)


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval().requires_grad_(False)


def text(size: int) -> torch.Tensor:
    states = torch.randn(size, 4, 5, generator=torch.Generator().manual_seed(7))
    states[:, 2:] = 0  # two tokens of prompt, two of padding
    return states


def spec(
    window: int | None = None, sink: int = 0, *, block: int = 2, relative: bool = False, policy="fixed", **more
) -> StreamSpec:
    return StreamSpec(
        STEPS, block, SHAPE, CacheSpec(window=window, sink=sink, relative=relative, policy=policy, alpha=0.5), **more
    )


@torch.no_grad()
def test_stepping_by_hand_equals_the_function(model):
    streamer = Streamer(model, model.encode_text(text(2)), [1, 2], spec(6, 2), 12)
    blocks = []
    while streamer.frame < 12:
        blocks.append(streamer.next_block())
    assert torch.equal(torch.cat(blocks, 1), generate(model, text(2), [1, 2], spec(6, 2), 12))
    with pytest.raises(StreamError, match="complete: 12"):
        streamer.next_block()


@torch.no_grad()
def test_an_endless_stream_keeps_only_the_window(model):
    streamer = Streamer(model, model.encode_text(text(1)), [3], spec(6, 2))
    memory = set()
    for _ in range(20):
        streamer.next_block()
        memory.add((streamer.cache.bytes, sum(block.shape[1] for block in streamer._recent)))
    assert streamer.frame == 40
    assert max(frames for _, frames in memory) == 6  # latents of the window, for a recache
    assert len({size for size, _ in memory}) == 1


@torch.no_grad()
def test_a_longer_request_begins_with_the_shorter(model):
    """Noise belongs to (sample, frame, step): how many frames are asked for changes no frame."""
    assert torch.equal(
        generate(model, text(1), [3], spec(6, 2), 16)[:, :8], generate(model, text(1), [3], spec(6, 2), 8)
    )


@torch.no_grad()
def test_given_frames_continue_a_video(model):
    whole = generate(model, text(1), [3], spec(6, 2), 12)
    continued = generate(model, text(1), [3], spec(6, 2, given=whole[:, :6]), 12)
    assert torch.allclose(continued, whole, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 5])
def test_image_to_video_has_a_first_frame_alone(model, window):
    image = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    alone = spec(window, 1 if window else 0, block=4, first_frame_alone=True, given=image)
    blocks = list(stream(model, model.encode_text(text(1)), [3], alone, 13))
    assert [block.shape[1] for block in blocks] == [1, 4, 4, 4]
    assert torch.equal(blocks[0], image)
    free = list(stream(model, model.encode_text(text(1)), [3], replace(alone, given=None), 13))
    assert [block.shape[1] for block in free] == [1, 4, 4, 4]
    assert not torch.allclose(free[1], blocks[1], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "change", "error", "word"),
    [
        (7, {}, StreamError, "a multiple of the block"),
        (12, {"first_frame_alone": True}, StreamError, r"1 \+ a multiple"),
        (None, {"cache": CacheSpec()}, StreamError, "without a window"),
        (12, {"cache": CacheSpec(window=7, sink=2)}, RecipeError, "a multiple of the block"),
        (12, {"given": torch.zeros(1, 3, *SHAPE)}, StreamError, "given"),
        (4, {"given": torch.zeros(1, 4, *SHAPE)}, StreamError, "fewer than"),
        (12, {"given": torch.zeros(1, 2, 2, 4, 6)}, StreamError, "shape"),
        (12, {"cache": CacheSpec(window=6, sink=2).model_copy(update={"alpha": 1.5})}, RecipeError, "share"),
    ],
)
def test_what_cannot_stream_is_refused(model, frames, change, error, word):
    with pytest.raises(error, match=word):
        Streamer(model, model.encode_text(text(1)), [3], replace(spec(6, 2), **change), frames)


@torch.no_grad()
@pytest.mark.parametrize("policy", ["fixed", "ema"])
@pytest.mark.parametrize("block", [1, 2])
def test_relative_positions_equal_rotating_the_whole_window_by_place(model, policy, block):
    """Ours rotates window keys by frame number and moves the sink; the plain loop rotates everything by place.

    Also far past 1,024 frames.
    """
    streamed = spec(6, block, block=block, relative=True, policy=policy)
    streamer = Streamer(model, model.encode_text(text(1)), [3], streamed)
    plain = PlainLoop(model, 1, GRID, 6, block, relative=True, alpha=0.5 if policy == "ema" else None)
    for start in range(0, 16, block):
        ours = streamer.next_block()
        streamer.write_finished()
        for step in (800.0, 0.0):  # any earlier pass evicts; the last one writes the clean keys
            plain.forward(ours, torch.full((1, block), step), text(1), start)
        x = torch.randn(1, block, *SHAPE, generator=torch.Generator().manual_seed(start))
        plan = streamer.cache.begin(start, block, write=False)
        found = model(x, torch.full((1, block), 300.0), streamer.text, positions=plan.positions, cache=plan)
        k, v = plain.k.clone(), plain.v.clone()
        assert torch.allclose(found, plain.forward(x, torch.full((1, block), 300.0), text(1), start), atol=2e-5)
        plain.k, plain.v = k, v


@torch.no_grad()
@pytest.mark.parametrize(
    ("window", "sink", "relative", "policy", "first_alone"),
    [
        (None, 0, False, "fixed", False),
        (6, 0, False, "fixed", False),
        (6, 2, True, "fixed", False),
        (6, 2, True, "ema", False),
        (4, 2, True, "ema", False),
        (4, 2, False, "ema", False),
        (2, 0, False, "fixed", False),
        (5, 1, True, "ema", True),
    ],
)
def test_context_written_with_the_next_block_is_the_context_written_alone(
    model, window, sink, relative, policy, first_alone
):
    """Also where the next block evicts the very block whose context is written (window = sink + block), and where the
    first block is one frame.
    """
    streamed = replace(
        spec(6, 2),
        cache=CacheSpec(window=window, sink=sink, relative=relative, policy=policy, alpha=0.5),
        first_frame_alone=first_alone,
    )
    frames = 13 if first_alone else 12
    states = model.encode_text(text(2))
    joined, alone = (Streamer(model, states, [3, 4], streamed, frames, join=join) for join in (True, False))
    while joined.frame < frames:
        assert torch.allclose(joined.next_block(), alone.next_block(), atol=2e-5)
    for streamer in (joined, alone):
        streamer.write_finished()
    for layer in range(2):
        for one, other in zip(joined.cache.chronological(layer), alone.cache.chronological(layer), strict=True):
            assert torch.allclose(one, other, atol=2e-5)


@torch.no_grad()
def test_a_joined_pass_calls_the_network_once_per_step(model, monkeypatch):
    """2 steps a block; the context of the last block only when asked for."""
    calls = []
    real = CausalWan.forward
    monkeypatch.setattr(
        CausalWan,
        "forward",
        lambda self, *args, **kw: (calls.append(kw.get("before") is not None), real(self, *args, **kw))[1],
    )
    streamer = Streamer(model, model.encode_text(text(1)), [3], spec(6, 2), 6)
    for _ in range(3):
        streamer.next_block()
    assert calls == [False, False, True, False, True, False]


@torch.no_grad()
def test_relative_positions_have_no_end():
    """Frame 6,004 sees what frame 6 sees, given the same past: only places count.

    One layer, so a key depends on its own frame only.
    """
    torch.manual_seed(0)
    model = CausalWan(TINY.model_copy(update={"num_layers": 1})).eval()
    states, results = model.encode_text(text(1)), []
    for skip in (0, 5998):
        cache = KVCache(
            layers=1, batch=1, heads=2, head_dim=12, grid=GRID, spec=CacheSpec(window=6, sink=2, relative=True)
        )
        generator = torch.Generator().manual_seed(2)
        for start in (0, 2 + skip, 4 + skip, 6 + skip):
            for skipped in range(cache.end, start, 2):
                cache.begin(skipped, 2, write=True)
            plan = cache.begin(start, 2, write=True)
            x = torch.randn(1, 2, *SHAPE, generator=generator)
            v = model(x, torch.full((1, 2), 300.0), states, positions=plan.positions, cache=plan)
        results.append(v)
    assert plan.positions == [6004, 6005]
    assert torch.allclose(*results, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("relative", [False, True])
def test_bfloat16_stays_close_to_float32(model, relative):
    """8 bits of mantissa: errors near 2^-7 on values of order 1 through two layers and two steps, on the same noise."""
    half = CausalWan(TINY).requires_grad_(False)
    half.load_state_dict(model.state_dict())
    full = generate(model, text(2), [1, 2], spec(6, 2, relative=relative), 12)
    low = generate(half.to(torch.bfloat16), text(2), [1, 2], spec(6, 2, relative=relative), 12)
    error = (full - low).abs().max().item()
    assert 1e-4 < error < 0.1


@torch.no_grad()
def test_token_counts_divisible_by_128(model):
    """The released mask code returns nothing where no padding is needed; 8 frames of 16 tokens are 128."""
    x = torch.randn(1, 8, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    clean, timestep, states = x.flip(1), torch.full((1, 8), 500.0), model.encode_text(text(1))
    mask = teacher_forcing_mask(8, 16, 2)
    assert mask.shape == (256, 256)
    both = torch.cat((clean, x), 1)
    at_once = model(both, torch.cat((timestep * 0, timestep), 1), states, positions=[*range(8), *range(8)], mask=mask)[
        :, 8:
    ]
    cache = KVCache(layers=2, batch=1, heads=2, head_dim=12, grid=(4, 4), spec=CacheSpec(), max_frames=8)
    for start in range(0, 8, 2):
        rows = slice(start, start + 2)
        read = cache.begin(start, 2, write=False)
        v = model(x[:, rows], timestep[:, rows], states, positions=read.positions, cache=read)
        assert torch.allclose(v, at_once[:, rows], atol=2e-5)
        write = cache.begin(start, 2, write=True)
        model(clean[:, rows], torch.zeros(1, 2), states, positions=write.positions, cache=write, context_only=True)


@torch.no_grad()
def test_folded_padding_is_the_same_attention(model):
    """Prompts of 2 and 1 tokens out of 4: one padding key weighs 2, or 3."""
    states = text(2)
    states[1, 1:] = 0
    folded, plain = model.encode_text(states, fold_padding=True), model.encode_text(states)
    assert folded.layers[0][0].shape[2] == 3
    assert torch.allclose(folded.layers[0][2].exp().flatten(1), torch.tensor([[1.0, 1.0, 2.0], [1.0, 3.0, 0.0]]))
    videos = [torch.cat(list(stream(model, each, [1, 2], spec(6, 2), 8)), 1) for each in (folded, plain)]
    assert torch.allclose(*videos, atol=1e-5)
    full = torch.ones(1, 4, 5)
    assert len(model.encode_text(full, fold_padding=True).layers[0]) == 2


def gradients(model: CausalWan, streamed: StreamSpec, exit_step: int, *, recompute: bool) -> dict[str, torch.Tensor]:
    """Gradients of a rollout's weighted sum, all blocks waiting for one backward pass."""
    network = CausalWan(TINY)
    network.load_state_dict(model.state_dict())
    network.gradient_checkpointing = recompute
    video = torch.cat(
        list(stream(network, network.encode_text(text(1)), [3], streamed, 12, exit_step=exit_step, gradient=True)), 1
    )
    (video * torch.randn(video.shape, generator=torch.Generator().manual_seed(9))).sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("exit_step", [0, 1])
@pytest.mark.parametrize("policy", ["fixed", "ema"])
@pytest.mark.parametrize("relative", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(model, exit_step, policy, relative):
    """The ring is overwritten before the backward pass recomputes; the pass must see what it saw."""
    streamed = spec(6, 2, relative=relative, policy=policy)
    stored, recomputed = (gradients(model, streamed, exit_step, recompute=recompute) for recompute in (False, True))
    assert stored.keys() == recomputed.keys()
    assert any(grad.abs().max() > 1e-3 for grad in stored.values())
    for name, grad in stored.items():
        assert torch.allclose(grad, recomputed[name], atol=1e-6), name


def test_reading_sees_what_writing_sees_also_in_a_blended_sink(model):
    """A first pass that reads (exit step 0) evicts as a first pass that writes does."""
    states, results = model.encode_text(text(1)), []
    for first_writes in (False, True):
        cache = KVCache(
            layers=2,
            batch=1,
            heads=2,
            head_dim=12,
            grid=GRID,
            spec=CacheSpec(window=6, sink=2, relative=True, policy="ema", alpha=0.5),
        )
        for start in range(0, 12, 2):
            x = torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(start))
            plan = cache.begin(start, 2, write=first_writes)
            v = model(x, torch.full((1, 2), 300.0), states, positions=plan.positions, cache=plan)
            plan = cache.begin(start, 2, write=True)
            model(x, torch.zeros(1, 2), states, positions=plan.positions, cache=plan, context_only=True)
        results.append(v)
    assert torch.allclose(*results, atol=1e-6)

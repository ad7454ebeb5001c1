"""Group-wise rollout (Astrolabe Eq. 3): one shared history is what each candidate's own history would be, with window,
sink and relative positions.

In float64, where only the order of sums differs (batch size, slots of a rolling cache), to 1e-12; one candidate alone
bit for bit; a prefix copied for every candidate to 1e-5 in float32, where a shared one is read once. With relative
positions to 2e-6: keys are rotated in float32, and the rolling cache rotates them in another order.
"""

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import RecipeError
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout import grouped as group_wise
from astro_cli.rollout.branches import Branches, CachedFrames, snapshot
from astro_cli.rollout.grouped import ClipContext, decode_candidates, record_history, sample_history
from astro_cli.rollout.streaming import StreamSpec, frame_noise, new_cache, stream, write_context
from astro_cli.sampling.sampler import few_step_grid, final, transitions

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE, BLOCK = (2, 4, 4), 2
CACHES = [
    CacheSpec(),
    CacheSpec(window=4, sink=0),
    CacheSpec(window=6, sink=2),
    CacheSpec(window=6, sink=2, relative=True),
]


def close(a: torch.Tensor, b: torch.Tensor, cache: CacheSpec) -> None:
    torch.testing.assert_close(a, b, atol=2e-6 if cache.relative else 1e-12, rtol=0.0)


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).double().eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def without_gradients():
    """As rollouts run; in float64 a pass with gradients rounds its float32 parts elsewhere."""
    with torch.no_grad():
        yield


def text(size: int) -> torch.Tensor:
    return torch.randn(size, 4, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def spec(cache: CacheSpec) -> StreamSpec:
    return StreamSpec(warp_timesteps((1000, 500), 4.0), BLOCK, SHAPE, cache)


def separately(
    model: CausalWan, row: int, history_seed: int, seed: int, how: StreamSpec, start: int, frames: int
) -> torch.Tensor:
    """One candidate with a cache of its own: history and clip through the rolling cache."""
    states = model.encode_text(text(2)[row : row + 1])
    cache = new_cache(model, 1, how, start + frames)
    blocks = list(stream(model, states, [history_seed], how, start, cache=cache))
    write_context(model, states, blocks[-1], cache, start - BLOCK)
    made = []
    for first in range(start, start + frames, BLOCK):

        def predict(x: torch.Tensor, timestep: torch.Tensor, last: bool, first: int = first) -> torch.Tensor:
            plan = cache.begin(first, BLOCK, write=True)
            return model(x, timestep, states, positions=plan.positions, cache=plan)

        def noise(use: str, first: int = first) -> torch.Tensor:
            return frame_noise(how, [seed], range(first, first + BLOCK), use, model.device)

        steps = few_step_grid(how.steps)
        sampled = transitions(predict, noise("x_T"), steps, lambda index, noise=noise: noise(f"renoise-{index}"))
        made.append(final(sampled))
        if first + BLOCK < start + frames:
            write_context(model, states, made[-1], cache, first)
    return torch.cat(made, 1)


def grouped(model: CausalWan, how: StreamSpec, start: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two prompts, three candidates each."""
    states = model.encode_text(text(2))
    history, shared = sample_history(model, states, [11, 12], how, start)
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    return history, decode_candidates(model, states.select(rows), [1, 2, 3, 4, 5, 6], how, shared, rows, start, frames)


@pytest.mark.parametrize("cache", CACHES, ids=str)
@pytest.mark.parametrize("start", [2, 6, 10])
def test_a_shared_history_is_each_candidates_own(model, cache, start):
    how = spec(cache)
    _, together = grouped(model, how, start, 4)
    for index, seed in enumerate((1, 2, 3, 4, 5, 6)):
        alone = separately(model, index // 3, 11 + index // 3, seed, how, start, 4)
        close(together[index : index + 1], alone, cache)


def test_one_candidate_is_its_own_history_bit_for_bit(model):
    """Batch 1 and no eviction: the same sums in the same order."""
    how = spec(CacheSpec())
    states = model.encode_text(text(2)[:1])
    _, shared = sample_history(model, states, [11], how, 6)
    one = decode_candidates(model, states, [1], how, shared, torch.tensor([0]), 6, 4)
    assert torch.equal(one, separately(model, 0, 11, 1, how, 6, 4))


def copied(shared: list[CachedFrames], times: int) -> list[CachedFrames]:
    """A prefix of its own for every candidate, from one history's."""
    many = []
    for one in shared:
        keys, values = ([tensor.repeat(times, 1, 1, 1) for tensor in tensors] for tensors in (one.keys, one.values))
        many.append(CachedFrames(one.frames, keys, values))
    return many


@pytest.mark.parametrize("cache", CACHES, ids=str)
def test_a_shared_prefix_is_separate_prefixes(cache, monkeypatch):
    """G = 4 in float32, after a history longer than the windows: the candidates, and the velocities they are trained
    on.
    """
    torch.manual_seed(0)
    model, how = CausalWan(TINY).eval(), spec(cache)
    history, shared = sample_history(model, model.encode_text(text(1)), [11], how, 8)
    together, apart = torch.zeros(4, dtype=torch.long), torch.arange(4)
    states = model.encode_text(text(1).expand(4, -1, -1))
    clips = decode_candidates(model, states, [1, 2, 3, 4], how, shared, together, 8, 4)
    assert clips.dtype == torch.float32
    separate = decode_candidates(model, states, [1, 2, 3, 4], how, copied(shared, 4), apart, 8, 4)
    torch.testing.assert_close(clips, separate, atol=1e-5, rtol=0)  # a history read once: sums in another order

    def trained_on(groups: torch.Tensor) -> torch.Tensor:
        context = ClipContext(model, states, history.expand(4, -1, -1, -1, -1), clips, groups, how, gradient=False)
        assert [len(segment.keys[0]) for segment in context.branches.shared] == [len(groups.unique())]
        noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(3))
        with torch.enable_grad():
            v = context.velocity(model, noise, torch.full((4, 4), 500.0), model.encode_text(text(1).expand(4, -1, -1)))
        assert v.requires_grad
        return v.detach()

    once = trained_on(together)
    monkeypatch.setattr(
        group_wise, "record_history", lambda *_: copied(record_history(model, states.select([0]), history, how), 4)
    )
    torch.testing.assert_close(once, trained_on(apart), atol=1e-5, rtol=0)


def test_candidates_differ_and_a_video_without_history_is_a_plain_stream(model):
    how = spec(CacheSpec(window=6, sink=2))
    _, together = grouped(model, how, 4, 2)
    assert not torch.allclose(together[0], together[1])
    states = model.encode_text(text(2))
    opening = decode_candidates(model, states, [1, 2], how, [], torch.arange(2), 0, 6)
    close(opening, torch.cat(list(stream(model, states, [1, 2], how, 6)), 1), how.cache)


def test_the_prefix_is_stored_once_per_prompt(model):
    _, one = sample_history(model, model.encode_text(text(2)), [11, 12], spec(CacheSpec(window=6, sink=2)), 12)
    # 2 (k, v) x 2 layers x 2 prompts x 2 heads x 6 frames of the window x 4 tokens x 12 wide x 8 bytes, whatever the
    # group's size
    assert one[0].bytes == 2 * 2 * 2 * 2 * 6 * 4 * 12 * 8
    _, later = sample_history(model, model.encode_text(text(2)), [11, 12], spec(CacheSpec(window=6, sink=2)), 24)
    assert later[0].bytes == one[0].bytes
    assert later[0].frames == [0, 1, 20, 21, 22, 23]
    branches = Branches(model, SHAPE, CacheSpec(window=6, sink=2), one, torch.zeros(8, dtype=torch.long))
    lone = Branches(model, SHAPE, CacheSpec(), [snapshot_of_one(model)], torch.zeros(8, dtype=torch.long))
    k, _ = lone.begin(4, BLOCK).parts[0].read(0, lone.rows, 8)
    assert k.shape[0] == 8
    assert k.stride(0) == 0  # a view: expanded, not copied
    assert branches.begin(12, BLOCK).parts[0].segment is one[0]


def snapshot_of_one(model: CausalWan):
    states, how = model.encode_text(text(2)[:1]), spec(CacheSpec())
    cache = new_cache(model, 1, how, 4)
    for start in (0, 2):
        write_context(model, states, torch.zeros(1, BLOCK, *SHAPE, dtype=torch.float64), cache, start)
    return snapshot(cache)


@pytest.mark.parametrize("cache", CACHES, ids=str)
def test_recorded_again_the_history_is_the_same_context(model, cache):
    states, how = model.encode_text(text(2)), spec(cache)
    history, sampled = sample_history(model, states, [11, 12], how, 8)
    again = record_history(model, states, history, how)
    assert again[0].frames == sampled[0].frames
    for left, right in zip((*again[0].keys, *again[0].values), (*sampled[0].keys, *sampled[0].values), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("cache", CACHES, ids=str)
def test_the_training_context_is_what_a_rolling_cache_shows(model, cache):
    """Velocities of a clip's blocks given its context, against a rolling cache of its own video, block by block."""
    how = spec(cache)
    history, clips = grouped(model, how, 6, 6)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    states = model.encode_text(text(2)).select(groups)
    context = ClipContext(model, states, history, clips, groups, how, gradient=False)
    live = ClipContext(model, states, history, clips, groups, how, gradient=True)
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    timestep = torch.full((6, 6), 500.0)
    v = context.velocity(model, noise, timestep, states)
    torch.testing.assert_close(
        live.velocity(model, noise, timestep, states), v, atol=2e-6, rtol=0.0
    )  # gradients or not, the same values
    cache_of_one = new_cache(model, 1, how, 12)
    alone = model.encode_text(text(2)[1:])
    video = torch.cat((history[1:], clips[4:5]), 1)
    for start in range(0, 12, BLOCK):
        if start >= 6:
            plan = cache_of_one.begin(start, BLOCK, write=False)
            part = model(
                noise[4:5, start - 6 : start - 4], timestep[4:5, :BLOCK], alone, positions=plan.positions, cache=plan
            )
            close(v[4:5, start - 6 : start - 4], part, cache)
        write_context(model, alone, video[:, start : start + BLOCK], cache_of_one, start)


def test_a_blending_sink_is_refused(model):
    with pytest.raises(RecipeError, match="policy: found 'ema'"):
        Branches(model, SHAPE, CacheSpec(window=6, sink=2, policy="ema"))


def test_a_history_is_recorded_once_for_the_parts_that_continue_it(model, monkeypatch):
    """By the same rows of the same latents, until the policy changes."""
    how = spec(CacheSpec(window=6, sink=2))
    history, clips = grouped(model, how, 6, 6)
    groups, memory = torch.tensor([0, 0, 0, 1, 1, 1]), group_wise.HistoryMemory()
    states = model.encode_text(text(2)).select(groups)
    record, calls = group_wise.record_history, []
    monkeypatch.setattr(group_wise, "record_history", lambda *arguments: calls.append(1) or record(*arguments))

    def context(rows: slice, latents: torch.Tensor = history) -> ClipContext:
        part = states.select(torch.arange(6)[rows])
        return ClipContext(model, part, latents, clips[rows], groups[rows], how, gradient=False, memory=memory)

    first, again = context(slice(0, 2)), context(slice(1, 3))
    assert len(calls) == 1
    assert again.branches.shared[0] is first.branches.shared[0]
    context(slice(3, 6))
    context(slice(2, 4))
    assert len(calls) == 3  # other rows
    context(slice(2, 4), history.clone())
    assert len(calls) == 4  # other latents
    memory.forget()
    context(slice(2, 4), history)
    assert len(calls) == 5

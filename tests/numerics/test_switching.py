"""Prompt switches: what each rule rewrites, when a schedule acts, and what it refuses. The released pass itself:
tests/golden.
"""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from astro_cli.cache.kv import CacheSpec, KVCache
from astro_cli.config.errors import StreamError
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.rollout.engine import Streamer, StreamSpec, new_cache, write_context
from astro_cli.rollout.streaming import stream
from astro_cli.rollout.switch_schedule import SwitchSchedule, SwitchUnits, block_starts, whole_blocks
from astro_cli.rollout.switching import SwitchRule

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE = (2, 4, 4)
RULES = [
    SwitchRule(recache="bidirectional"),
    SwitchRule(recache="bidirectional", renew_sink=True),
    SwitchRule(recache="block_causal"),
    SwitchRule(recache="block_causal", renew_sink=True),
]


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval().requires_grad_(False)


def prompt(model: CausalWan, index: int) -> TextStates:
    return model.encode_text(torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(index)))


def spec(
    window: int | None = 6, sink: int = 2, *, block: int = 2, relative: bool = False, policy="fixed"
) -> StreamSpec:
    return StreamSpec(
        warp_timesteps((1000, 500), 4.0),
        block,
        SHAPE,
        CacheSpec(window=window, sink=sink, relative=relative, policy=policy, alpha=0.5),
    )


def streamed(model: CausalWan, frames: int, streaming: StreamSpec, length: int = 20) -> tuple[Streamer, torch.Tensor]:
    """A stream under prompt 0 with so many frames finished and written."""
    streamer = Streamer(model, prompt(model, 0), [3], streaming, length)
    video = torch.cat([streamer.next_block() for _ in range(frames // streaming.block)], 1)
    streamer.write_finished()
    return streamer, video


def contents(cache: KVCache) -> list[torch.Tensor]:
    return [tensor for layer in range(len(cache.k)) for tensor in cache.chronological(layer)]


@torch.no_grad()
def test_none_changes_the_text_only(model):
    streamer, _ = streamed(model, 10, spec())
    before = contents(streamer.cache)
    streamer.switch(prompt(model, 1), SwitchRule(recache="none"))
    assert all(torch.equal(a, b) for a, b in zip(before, contents(streamer.cache), strict=True))
    other, _ = streamed(model, 10, spec())
    assert not torch.allclose(streamer.next_block(), other.next_block(), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("renew", [False, True])
def test_a_bidirectional_recache_is_one_pass_over_the_visible_frames(model, relative, renew):
    """Renewed sink: exactly a cache that begins with the last 6 frames and is filled in one pass; kept: its sink is
    untouched.
    """
    streamer, video = streamed(model, 10, spec(relative=relative))
    before = contents(streamer.cache)
    streamer.switch(prompt(model, 1), SwitchRule(renew_sink=renew))
    after = contents(streamer.cache)
    assert streamer.cache.visible(10) == ([4, 5, 6, 7, 8, 9] if renew else [0, 1, 6, 7, 8, 9])
    kept = [torch.equal(a[:, :, :8], b[:, :, :8]) for a, b in zip(before, after, strict=True)]  # 2 frames of 4 tokens
    assert not any(
        torch.allclose(a[:, :, 8:], b[:, :, 8:], atol=1e-3) for a, b in zip(before[2:], after[2:], strict=True)
    )
    if not renew:
        assert all(kept)
        return
    fresh = new_cache(model, 1, spec(relative=True), None)
    write_context(model, prompt(model, 1), video[:, 4:10], fresh, 0)
    if relative:  # keys of equal places
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(after, contents(fresh), strict=True))
    else:  # values know no position in layer 0, and only differences of positions later
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(after[1::2], contents(fresh)[1::2], strict=True))


@torch.no_grad()
def test_block_causal_writes_what_the_new_prompt_would_have_written(model):
    """Without a window: block by block over the whole past, as if the context had been written under the new prompt."""
    streamer, video = streamed(model, 8, spec(None, 0))
    streamer.switch(prompt(model, 1), SwitchRule(recache="block_causal"))
    fresh = new_cache(model, 1, spec(None, 0), 20)
    for start in range(0, 8, 2):
        write_context(model, prompt(model, 1), video[:, start : start + 2], fresh, start)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(contents(streamer.cache), contents(fresh), strict=True))


@torch.no_grad()
def test_block_causal_sees_no_later_block(model):
    """Of the recached frames 6 ..

    9 the first block must not depend on the last, whose old keys still lie in the ring.
    """
    results = []
    for replaced in (False, True):
        streamer, _ = streamed(model, 10, spec())
        if replaced:
            streamer._recent[-1] = streamer._recent[-1].flip(-1)
            for buffer in (*streamer.cache.k, *streamer.cache.v):
                buffer[:, :, streamer.cache.token_slice(range(streamer.cache.slot(8), streamer.cache.slot(9) + 1))] = (
                    7.0
                )
        streamer.switch(prompt(model, 1), SwitchRule(recache="block_causal"))
        results.append(contents(streamer.cache))
    for a, b in zip(*results, strict=True):  # tokens: sink 0 .. 7, frames 6, 7 in 8 .. 15, frames 8, 9 after
        assert torch.allclose(a[:, :, :16], b[:, :, :16], atol=1e-6)
        assert not torch.allclose(a[:, :, 16:], b[:, :, 16:], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES)
def test_the_same_prompt_changes_nothing_where_one_block_was_made(model, rule):
    streamer, _ = streamed(model, 2, spec(None, 0))
    before = contents(streamer.cache)
    streamer.switch(prompt(model, 0), rule)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(before, contents(streamer.cache), strict=True))


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("block", "sink", "policy"), [(1, 3, "fixed"), (2, 2, "ema"), (3, 2, "fixed")])
def test_streams_go_on_after_switches_at_any_time(model, rule, block, sink, policy):
    """Early switches meet a half-filled sink and window, late ones a ring that went round; memory stays as it is."""
    streamer = Streamer(
        model, prompt(model, 0), [3], spec(6, sink, block=block, relative=policy == "ema", policy=policy)
    )
    sizes = set()
    for index in range(14):
        assert torch.isfinite(streamer.next_block()).all()
        streamer.switch(prompt(model, index), rule)
        visible = streamer.cache.visible(streamer.frame)
        assert visible == sorted(set(visible))
        assert visible[-1] == streamer.frame - 1
        assert len({streamer.cache.slot(frame) for frame in visible}) == len(visible) == min(6, streamer.frame)
        sizes.add((streamer.cache.bytes, streamer.cache.sink_bytes))
    assert len(sizes) == 1


@torch.no_grad()
def test_a_switch_inside_a_block_acts_at_the_next(model):
    """Frame 5 lies in the block 4, 5: the block at 6 is the first under the new prompt, as with a switch at 6."""
    videos = []
    for frame in (5, 6):
        schedule = SwitchSchedule([(frame, prompt(model, 1))], 12, 2)
        videos.append(torch.cat(list(stream(model, prompt(model, 0), [3], spec(), 12, schedule=schedule)), 1))
    plain = torch.cat(list(stream(model, prompt(model, 0), [3], spec(), 12)), 1)
    assert torch.equal(*videos)
    assert torch.equal(videos[0][:, :6], plain[:, :6])
    assert not torch.allclose(videos[0][:, 6:8], plain[:, 6:8], atol=1e-4)


def test_of_two_switches_in_one_block_the_later_acts():
    schedule = SwitchSchedule([(4, "a"), (5, "b"), (9, "c")], 12, 3)
    assert [schedule.due(frame) for frame in (0, 3, 6, 9)] == [None, None, "b", "c"]


@pytest.mark.parametrize(
    ("frames", "key", "word"),
    [
        ([0], "0", "after the beginning"),
        ([6, 3], "3", "takes over at latent frame 3, not after the switch before it, at latent frame 6"),
        ([6, 6], "6", "not after"),
        ([12], "12", "past the end"),
        ([10], "10", "last block begins at latent frame 9 of 12"),
        ([-3], "-3", "after the beginning"),
    ],
)
def test_bad_schedules_are_refused(frames, key, word):
    with pytest.raises(StreamError, match=word) as caught:
        SwitchSchedule([(frame, "text") for frame in frames], 12, 3)
    assert caught.value.key == key


def test_a_caller_s_units_name_the_times_of_a_refusal():
    units = SwitchUnits("--switch", ["2s", "3s"], "frame", lambda latent: 4 * latent - 3, 16.0)
    with pytest.raises(StreamError) as caught:
        SwitchSchedule([(6, "a"), (3, "b")], 12, 3, units=units)
    assert caught.value.key == "3s"
    assert "takes over at frame 9, not after the switch before it, at frame 21" in str(caught.value)
    with pytest.raises(StreamError) as caught:
        SwitchSchedule([(6, "a"), (12, "b")], 12, 3, units=units)
    assert "the last block begins at frame 33 (2.1 s) of 45" in str(caught.value)


@pytest.mark.parametrize(("frames", "block", "whole"), [(0, 3, 0), (1, 3, 3), (3, 3, 3), (4, 3, 6), (5, 1, 5)])
def test_whole_blocks_by_hand(frames, block, whole):
    assert whole_blocks(frames, block) == whole


def test_block_starts_by_hand():
    assert block_starts(9, 4, first_frame_alone=True) == [0, 1, 5]
    assert block_starts(6, 3) == [0, 3]
    assert block_starts(3, 1) == [0, 1, 2]


def test_a_sink_is_only_renewed_by_recomputing_it():
    with pytest.raises(ValidationError, match="renew_sink"):
        SwitchRule(recache="none", renew_sink=True)


@torch.no_grad()
def test_text_of_another_batch_is_refused(model):
    streamer, _ = streamed(model, 2, spec())
    with pytest.raises(StreamError, match="found states of 2 prompts, expected 1"):
        streamer.switch(model.encode_text(torch.zeros(2, 4, 5)))


def test_recomputing_a_pass_after_a_recache_is_caught(model):
    """Under gradient checkpointing a recache rewrites history that the backward pass still needs: an assertion, not
    wrong gradients.
    """
    network = CausalWan(TINY)
    network.load_state_dict(model.state_dict())
    network.gradient_checkpointing = True
    streamer = Streamer(network, prompt(network, 0), [3], spec(), 12)
    loss = torch.stack([streamer.next_block(gradient=True).sum() for _ in range(2)]).sum()
    streamer.switch(prompt(network, 1))
    with pytest.raises(AssertionError, match="rewrote the history"):
        loss.backward()

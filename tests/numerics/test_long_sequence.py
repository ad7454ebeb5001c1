"""Streaming long tuning: chunks and their masks by hand, one switch, the limit of plain DMD, what a state holds."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from test_dmd import TINY

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.roles import Roles
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import dmd, long_tuning
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.rollout.engine import Streamer
from astro_cli.rollout.long_sequence import ChunkPlan, LongSequence, VideoScript

PLAN = ChunkPlan(frames=14, chunk=6, overlap=2)
NEVER = 1000


class Shifted:
    """A codec whose image latent is the frame less ten; three latents see each other."""

    def decoder(self) -> StreamingDecoder:
        return StreamingDecoder(lambda latents, seen: (latents, seen), [None], reach=3)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return frames - 10


@pytest.fixture
def run_context() -> RunContext:
    torch.manual_seed(0)
    roles = Roles()
    for role in ("student", "critic", "teacher"):
        network = CausalWan(TINY)
        torch.nn.init.normal_(network.proj_out.weight, std=0.3)
        roles.add(role, network, trained=role != "teacher")
    return RunContext(
        roles=roles,
        steps=warp_timesteps((1000, 750, 500, 250), 4.0),
        shift=4.0,
        frames=6,
        block=2,
        latent_shape=(2, 4, 4),
        cache=CacheSpec(window=4, sink=2),
        encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
    )


def text(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(seed))


def script(switch: int = NEVER) -> VideoScript:
    return VideoScript([1, 2], (text(3), text(4)), switch)


def sequence(run_context: RunContext, plan: ChunkPlan = PLAN, switch: int = NEVER) -> LongSequence:
    student = run_context.roles.modules["student"]
    return LongSequence(student, Shifted(), run_context.stream_spec(), plan, script(switch))  # type: ignore[arg-type]


def batch(long: LongSequence, shared: int = 0) -> Batch:
    return Batch([1, 2], ["", ""], text_BMD=long.text_BMD, sequences=(long,), shared=shared)


def objective(run_context: RunContext) -> long_tuning.Objective:
    return long_tuning.Objective(long_tuning.Config(frames=14, overlap=2), run_context)


def test_chunks_by_hand():
    # LongLive: 21 frames, then 18 new ones each; the last chunk that fits into 240 ends at 21 + 12 * 18 = 237
    released = ChunkPlan(240, 21, 3)
    assert (released.new, released.end) == (18, 237)
    assert released.starts() == [0, 21, 39, 57, 75, 93, 111, 129, 147, 165, 183, 201, 219]
    assert (PLAN.new, PLAN.end, PLAN.starts()) == (4, 14, [0, 6, 10])


@torch.no_grad()
def test_a_chunk_is_old_frames_the_first_as_an_image_and_new_ones(run_context):
    long, chunks = sequence(run_context), []
    while not long.done:
        long.enter()
        chunks.append(long.next_chunk(3, gradient=False))
    plain = Streamer(long.student, long.student.encode_text(text(3)), [1, 2], run_context.stream_spec(), 14)
    video = torch.cat([plain.next_chunk(count, 3) for count in (6, 4, 4)], 1)
    assert [(chunk.start, chunk.new, chunk.fresh) for chunk in chunks] == [
        (0, 6, slice(0, None)),
        (6, 4, slice(2, None)),
        (10, 4, slice(2, None)),
    ]
    assert torch.equal(chunks[0].window_BFCHW, video[:, :6])
    for chunk, first in zip(chunks[1:], (4, 8), strict=True):
        assert torch.equal(chunk.window_BFCHW[:, 1:], video[:, first + 1 : first + 6])
        assert torch.equal(chunk.window_BFCHW[:, :1], video[:, first : first + 1] - 10)
        assert torch.equal(chunk.history_BFCHW, video[:, max(0, chunk.start - 5) : chunk.start])  # overlap 2 + reach 3


def test_the_first_chunk_is_plain_dmd(run_context):
    """One chunk from the beginning of a video: the same loss and gradients bit for bit, student and critic."""
    for role in ("student", "critic"):
        found = []
        for method in (objective(run_context), dmd.Objective(dmd.Config(), run_context)):
            module = run_context.roles.modules[role]
            module.zero_grad(set_to_none=True)
            loss = method.loss(role, batch(sequence(run_context))).loss
            loss.backward()
            found.append((loss.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]))
        assert torch.equal(found[0][0], found[1][0])
        assert len(found[0][1]) == len(found[1][1])
        assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def later(run_context: RunContext, **more) -> LongSequence:
    """A sequence whose first chunk is made."""
    long = sequence(run_context, **more)
    with torch.no_grad():
        long.enter()
        long.next_chunk(3, gradient=False)
        long.enter()
    return long


def test_old_frames_have_no_part_in_the_loss_but_in_its_normaliser(run_context, monkeypatch):
    """x 1 everywhere, r 3, f 2 on new frames; r 11 on old ones: n = (4 * 2 + 2 * 10) / 6 = 14 / 3, g = -1 / n on new
    frames, so the loss is g^2 / 2 = (3 / 14)^2 / 2 whatever f is on old frames.
    """
    long, method = later(run_context), objective(run_context)
    x = torch.ones(2, 6, 2, 4, 4)
    real, fake = 3 * x, 2 * x
    real[:, :2], fake[:, :2] = 11, 77
    monkeypatch.setattr(
        method, "rollout", lambda given, *, gradient: type(long).next_chunk(long, 3, gradient=False) and x
    )
    monkeypatch.setattr(method, "score_difference", lambda given, at: dmd.dmd_gradient(at, real, fake))
    assert method.loss("student", batch(long)).loss.item() == pytest.approx((3 / 14) ** 2 / 2)


def test_only_new_frames_carry_gradients(run_context):
    long = later(run_context)
    chunk = long.next_chunk(2, gradient=True)
    weights = torch.zeros_like(chunk.window_BFCHW)
    weights[:, :2] = 1.0
    assert chunk.window_BFCHW.requires_grad
    (chunk.window_BFCHW * weights).sum().backward()
    student = run_context.roles.modules["student"]
    assert all(p.grad is None or not p.grad.abs().any() for p in student.parameters())
    assert not chunk.history_BFCHW.requires_grad
    assert not long.tail_BFCHW.requires_grad
    assert not any(part.requires_grad for layer in long.streamer.text.layers for part in layer)


def test_critic_and_student_take_successive_chunks(run_context):
    long, method, starts = sequence(run_context), objective(run_context), []
    for role in ("student", "critic", "critic"):
        long.enter()
        method.loss(role, batch(long))
        assert long.chunk is not None
        starts.append(long.chunk.start)
    assert starts == [0, 6, 10]
    assert long.done


@torch.no_grad()
def test_the_prompt_switches_once_at_its_chunk_with_a_recache(run_context):
    long, plain = sequence(run_context, switch=6), sequence(run_context)
    seen = []
    for each in (long, plain):
        texts, chunks, rewrites = [], [], []
        while not each.done:
            each.enter()
            texts.append(torch.equal(each.text_BMD, text(4)))
            rewrites.append(each.streamer.cache.rewrites)
            chunks.append(each.next_chunk(3, gradient=False).window_BFCHW)
        seen.append((texts, rewrites, chunks))
    assert seen[0][:2] == ([False, True, True], [0, 1, 1])
    assert seen[1][:2] == ([False, False, False], [0, 0, 0])
    assert torch.equal(seen[0][2][0], seen[1][2][0])
    assert (seen[0][2][1] - seen[1][2][1]).abs().max() > 1e-3


def test_a_chunk_is_made_by_the_weights_of_now(run_context):
    """Text states are renewed, also where only the text layers have moved."""
    long = later(run_context)
    other = copy.deepcopy(long)
    other.student = other.streamer.network = long.student
    with torch.no_grad():
        before = other.next_chunk(3, gradient=False).window_BFCHW
        long.student.blocks[0].attn2.to_k.weight.add_(0.5)
        assert (long.next_chunk(3, gradient=False).window_BFCHW - before).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("made", [1, 2])
@pytest.mark.parametrize("policy", ["fixed", "ema"])
def test_a_loaded_sequence_goes_on_with_the_same_bits(run_context, made, policy):
    """Before and after the switch."""
    run_context.cache = CacheSpec(window=4, sink=2, relative=True, policy=policy, alpha=0.5)
    long = sequence(run_context, switch=10)
    for _ in range(made):
        long.enter()
        long.next_chunk(1, gradient=False)
    state = {name: value.clone() for name, value in long.state().items()}
    loaded = LongSequence.load(long.student, long.backbone, run_context.stream_spec(), PLAN, script(10), state)
    assert long.chunk is not None
    assert loaded.chunk is not None
    assert (loaded.chunk.start, loaded.chunk.new) == (long.chunk.start, long.chunk.new)
    assert torch.equal(loaded.chunk.window_BFCHW, long.chunk.window_BFCHW)
    while not long.done:
        for each in (long, loaded):
            each.enter()
        one, other = (each.next_chunk(2, gradient=False) for each in (long, loaded))
        assert torch.equal(one.window_BFCHW, other.window_BFCHW)
        assert torch.equal(one.history_BFCHW, other.history_BFCHW)
    assert loaded.done


@torch.no_grad()
def test_what_is_kept_does_not_grow_with_the_video(run_context):
    long, sizes = sequence(run_context, replace(PLAN, frames=86)), []
    while not long.done:
        long.enter()
        long.next_chunk(0, gradient=False)
        sizes.append(sum(value.numel() for value in long.state().values()))
    assert len(sizes) == 21
    assert len(set(sizes[1:])) == 1


def test_rows_of_a_batch_are_whole_sequences(run_context):
    one, other = sequence(run_context), sequence(run_context)
    whole = Batch([1, 2, 3, 4], [""] * 4, text_BMD=torch.cat((one.text_BMD, other.text_BMD)), sequences=(one, other))
    assert whole.rows(0, 2).sequences == (one,)
    assert whole.rows(2, 4).sequences == (other,)
    with pytest.raises(AssertionError, match="whole sequences"):
        whole.rows(1, 4)

"""AAPT: losses and penalties by hand, which frames a gradient reaches, pairs, segments, logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from astro_cli.cache.spec import CacheSpec
from astro_cli.models.discriminator import head_layers
from astro_cli.models.wan.config import WanConfig
from astro_cli.objectives import adversarial, next_frame
from astro_cli.objectives.adversarial import Config, Objective, discriminator_loss, generator_loss, penalty
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.rollout.next_frame import NextFrameStreamer, segment_cache
from tests.tiny_policy import next_frame_context

TINY = WanConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, extra_channels=2, freq_dim=8, text_dim=5, text_len=4
)
FRAMES = 4


T = TypeVar("T")


def known(value: T | None) -> T:
    assert value is not None
    return value


@pytest.fixture
def run_context() -> RunContext:
    return next_frame_context(TINY, FRAMES, CacheSpec())


def batch(size: int = 2) -> Batch:
    rng = torch.Generator().manual_seed(3)
    text, clean = torch.randn(size, 4, 5, generator=rng), torch.randn(size, FRAMES, 2, 4, 4, generator=rng)
    return Batch(seeds=list(range(size)), prompts=[""] * size, text_BMD=text, latents_BFCHW=clean)


# --- losses


def test_equal_logits_give_log_2_to_both():
    logits = torch.tensor([[0.3, -2.0], [5.0, 0.0]])
    assert generator_loss(logits, logits).item() == pytest.approx(math.log(2))
    assert discriminator_loss(logits, logits).item() == pytest.approx(math.log(2))


def test_pair_losses_by_hand():
    # D_f - D_r = .5: G softplus(-.5) = .474077, D softplus(.5) = .974077
    fake, real = torch.tensor([[1.5]]), torch.tensor([[1.0]])
    assert generator_loss(fake, real).item() == pytest.approx(0.474077, abs=1e-6)
    assert discriminator_loss(fake, real).item() == pytest.approx(0.974077, abs=1e-6)


def test_pairs_matter():
    fake, real = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [2.0]])
    permuted = real.flip(0)
    assert generator_loss(fake, real).item() == pytest.approx(math.log(2))
    # (softplus(2) + softplus(-2)) / 2 = (2.126928 + .126928) / 2
    assert generator_loss(fake, permuted).item() == pytest.approx(1.126928, abs=1e-6)


def test_the_penalty_of_a_linear_discriminator_is_lambda_sigma_squared_a_squared():
    # D(x) = a . x with |a|^2 = 2: E lambda (a . sigma n)^2 = 1000 x .01 x 2 = 20
    a, rng = torch.tensor([1.0, -1.0]), torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 2, generator=rng)
    noise = torch.randn(200_000, 2, generator=rng)
    value = penalty((x @ a)[:, None], ((x + 0.1 * noise) @ a)[:, None], 1000.0)
    assert value.item() == pytest.approx(20, rel=0.02)


def test_a_constant_discriminator_has_no_penalty(run_context):
    judge = run_context.roles.modules["discriminator"]
    with torch.no_grad():
        judge.logit.weight.zero_()
        judge.logit.bias.fill_(3.0)
    (out,) = Objective(Config(), run_context).loss("discriminator", batch())
    assert (out.metrics["aR1"], out.metrics["aR2"]) == (0.0, 0.0)
    assert out.loss.item() == pytest.approx(math.log(2))
    assert out.metrics["real_1"] == out.metrics["fake_3"] == 3.0


def test_a_permuted_batch_of_real_clips_changes_the_loss(run_context):
    objective, given = Objective(Config(weight=0.0), run_context), batch()
    fake = next(objective.clips(given, gradient=False))
    judge, text = objective._judge(), objective._judge().encode_text(known(given.text_BMD))
    fake_BF, real_BF = (objective.logits(given, judge, text, clip) for clip in (fake, known(given.latents_BFCHW)))
    paired, crossed = generator_loss(fake_BF, real_BF), generator_loss(fake_BF, real_BF.flip(0))
    assert abs(paired.item() - crossed.item()) > 1e-6


# --- where gradients go


def test_each_role_gets_the_gradients_of_its_own_loss(run_context):
    objective, given, modules = Objective(Config(), run_context), batch(), run_context.roles.modules
    for role, other in (("student", "discriminator"), ("discriminator", "student")):
        for out in objective.loss(role, given):
            out.loss.backward()
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in modules[role].parameters()), role
        assert all(p.grad is None for p in modules[other].parameters()), other
        assert all(p.requires_grad for module in modules.values() for p in module.parameters())
        modules[role].zero_grad(set_to_none=True)


def passes(run_context: RunContext, monkeypatch) -> list[torch.Tensor]:
    """What the student's passes predict, in order, with their gradients kept."""
    seen: list[torch.Tensor] = []
    student = run_context.roles.modules["student"]
    forward = student.forward

    def keep(*arguments, **options):
        v = forward(*arguments, **options)
        if v.requires_grad:
            v.retain_grad()
        seen.append(v)
        return v

    monkeypatch.setattr(student, "forward", keep)
    return seen


def test_the_last_frame_reaches_the_first_pass_of_its_segment(run_context, monkeypatch):
    seen = passes(run_context, monkeypatch)
    (clip,) = Objective(Config(), run_context).clips(batch(), gradient=True)
    clip[:, -1].sum().backward()
    assert len(seen) == FRAMES - 1
    assert all(v.grad is not None and v.grad.abs().max() > 0 for v in seen)


def test_gradients_reach_the_first_pass_through_the_cache_alone(run_context):
    """Without recycled frames only the cached keys and values connect the passes."""
    student, given = run_context.roles.modules["student"], batch()
    spec = replace(run_context.stream_spec(), recycle="first", given=known(given.latents_BFCHW)[:, :1])
    cache = segment_cache(student, spec)
    streamer = NextFrameStreamer(
        student, student.encode_text(known(given.text_BMD)), given.seeds, spec, FRAMES, cache=cache
    )
    streamer.next_block(gradient=True)
    values = cache[0].frames[0].v
    values.retain_grad()
    streamer.next_block(gradient=True)
    streamer.next_block(gradient=True).sum().backward()
    assert values.grad.abs().max() > 0
    streamer.detach()
    assert not any(frame.v.requires_grad for layer in cache for frame in layer.frames.values())


def test_gradients_stop_at_a_segments_border(run_context, monkeypatch):
    context = replace(run_context, cache=CacheSpec(window=4, sink=1))
    seen = passes(context, monkeypatch)
    first, second = Objective(Config(extensions=1), context).clips(batch(), gradient=True)
    assert second.shape == first.shape
    assert torch.equal(second[:, 0], first[:, -1].detach())
    second[:, 1:].sum().backward()
    assert len(seen) == 2 * (FRAMES - 1)
    assert all(v.grad is None for v in seen[: FRAMES - 1])
    assert all(known(v.grad).abs().max() > 0 for v in seen[FRAMES - 1 :])


def test_segments_are_one_loss_each_and_hold_no_graph_of_the_last(run_context):
    context = replace(run_context, cache=CacheSpec(window=3, sink=1))
    one, three = (Objective(Config(extensions=count), context) for count in (0, 2))
    losses = []
    for out in three.loss("student", batch()):
        out.loss.backward()  # would fail where a graph that is freed were reached
        losses.append(out.loss.item())
    assert len(losses) == 3
    (alone,) = one.loss("student", batch())
    assert losses[0] * 3 == pytest.approx(alone.loss.item(), rel=1e-5)


def test_saved_bytes_do_not_grow_with_the_segments(run_context):
    from astro_cli.training.memory import SavedTensors

    context, peaks = replace(run_context, cache=CacheSpec(window=3, sink=1)), []
    for count in (1, 4):
        saved = SavedTensors()
        losses = Objective(Config(extensions=count), context).loss("student", batch())
        while True:
            with saved.counting(context.roles.modules["student"].parameters()):
                out = next(losses, None)
            if out is None:
                break
            out.loss.backward()
        peaks.append(saved.take(torch.device("cpu"))["memory/saved_bytes"])
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05)


# --- forcing and views


def test_teacher_forced_frames_know_nothing_of_one_another(run_context):
    objective, given = Objective(Config(forcing="teacher"), run_context), batch()
    (clip,) = objective.clips(given, gradient=False)
    assert torch.equal(clip[:, 0], known(given.latents_BFCHW)[:, 0])
    judge, text = objective._judge(), objective._judge().encode_text(known(given.text_BMD))
    logits = objective.logits(given, judge, text, clip, known(given.latents_BFCHW))
    other = clip.clone()
    other[:, 1] += 1.0  # the second logit is given the true first frame, whatever was made of it
    changed = objective.logits(given, judge, text, other, known(given.latents_BFCHW))
    assert not torch.allclose(changed[:, 0], logits[:, 0])
    assert torch.allclose(changed[:, 1:], logits[:, 1:], atol=1e-6)
    # In student forcing it is judged given its own past.
    student = Objective(Config(), run_context)
    own, moved = (student.logits(given, judge, text, each) for each in (clip, other))
    assert not torch.allclose(own[:, 1:], moved[:, 1:])


def test_a_true_clip_is_judged_alike_in_both_forcings(run_context):
    """A fake that is the true clip: given its own past or the true one, the logits are the same."""
    given = batch()
    logits = []
    for forcing in ("student", "teacher"):
        objective = Objective(Config(forcing=forcing), run_context)
        judge = objective._judge()
        text = judge.encode_text(known(given.text_BMD))
        logits.append(objective.logits(given, judge, text, known(given.latents_BFCHW), known(given.latents_BFCHW)))
    assert torch.allclose(logits[0], logits[1], atol=1e-5)


def test_a_causal_logit_sees_no_later_frame_and_a_bidirectional_one_sees_all(run_context):
    given = batch()
    later = known(given.latents_BFCHW).clone()
    later[:, -1] += 1.0
    causal, whole = (Objective(Config(attention=view), run_context) for view in ("causal", "bidirectional"))
    judge = causal._judge()
    text = judge.encode_text(known(given.text_BMD))
    before, after = (causal.logits(given, judge, text, clip) for clip in (known(given.latents_BFCHW), later))
    assert before.shape == (2, FRAMES - 1)
    assert torch.allclose(before[:, :-1], after[:, :-1], atol=1e-6)
    assert not torch.allclose(before[:, -1], after[:, -1])
    before, after = (whole.logits(given, judge, text, clip) for clip in (known(given.latents_BFCHW), later))
    assert before.shape == (2, 1)
    assert not torch.allclose(before, after)


def test_heads_are_at_apts_layers():
    assert head_layers(36) == (16, 26, 36)
    assert head_layers(30) == (13, 22, 30)
    assert head_layers(4) == (2, 3, 4)
    assert head_layers(1) == (1, 1, 1)


def test_the_discriminator_begins_with_the_adapted_weights(run_context):
    modules = run_context.roles.modules
    next_frame.Objective(next_frame.Config(), run_context).finish()
    for name, value in modules["student"].state_dict().items():
        assert torch.equal(modules["discriminator"].trunk.state_dict()[name], value), name


def test_both_losses_come_down_on_one_batch(run_context):
    """The judge learns to tell fakes from real clips, the student to pass for one, each against a fixed other."""
    objective, given, modules = Objective(Config(weight=1.0), run_context), batch(4), run_context.roles.modules
    for role in ("discriminator", "student"):
        optimizer = torch.optim.RMSprop(modules[role].parameters(), lr=1e-3, alpha=0.9)
        losses = []
        for _ in range(25):
            (out,) = objective.loss(role, given)
            out.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(out.loss.item())
        assert losses[-1] < losses[0] - 0.05, role


assert adversarial.DISCRIMINATOR in Objective.trains

"""Next-frame models: one pass over a clip and cached passes agree; adaptation and consistency by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from astro_cli.cache.spec import CacheSpec
from astro_cli.config.errors import StreamError
from astro_cli.core.flow import add_noise, warp_timesteps
from astro_cli.models.roles import Roles
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import next_frame, next_frame_consistency
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.rollout.engine import frame_noise
from astro_cli.rollout.next_frame import NextFrameStreamer, forced_velocity, recycled_input, segment_cache
from astro_cli.rollout.spec import StreamSpec

TINY = WanConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, extra_channels=2, freq_dim=8, text_dim=5, text_len=4
)
SHAPE, FRAMES = (2, 4, 4), 6


@pytest.fixture
def network() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY)


@pytest.fixture
def text(network):
    return network.encode_text(torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)))


def clean() -> torch.Tensor:
    return torch.randn(2, FRAMES, *SHAPE, generator=torch.Generator().manual_seed(2))


def spec(
    cache: CacheSpec | None = None,
    steps: tuple[float, ...] = (1000,),
    recycle: Literal["previous", "first"] = "previous",
) -> StreamSpec:
    return StreamSpec(
        warp_timesteps(steps, 24.0), 1, SHAPE, cache or CacheSpec(), given=clean()[:, :1], recycle=recycle
    )


def test_what_is_recycled_by_hand():
    frames = torch.arange(4.0).view(1, 4, 1, 1, 1).add(1)
    assert recycled_input(frames, "previous").flatten().tolist() == [1, 2, 3]
    assert recycled_input(frames, "first").flatten().tolist() == [1, 0, 0]


@pytest.mark.parametrize("recycle", ["previous", "first"])
@pytest.mark.parametrize("cache", [CacheSpec(), CacheSpec(window=3, sink=1), CacheSpec(window=2)])
@torch.no_grad()
def test_one_pass_over_a_streams_own_frames_predicts_them(network, text, cache, recycle):
    """Teacher forcing on what the student made is student forcing: the same frames from the same noise."""
    streamer = NextFrameStreamer(network, text, [5, 6], spec(cache, recycle=recycle), FRAMES)
    made = torch.cat([clean()[:, :1], *(streamer.next_block() for _ in range(FRAMES - 1))], 1)
    noise = frame_noise(streamer.spec, [5, 6], range(1, FRAMES), "x_T", torch.device("cpu"))
    timestep = torch.full((2, FRAMES - 1), 1000.0)
    v = forced_velocity(network, noise, timestep, text, recycled_input(made, recycle), cache.window, cache.sink)
    assert torch.allclose(noise - v, made[:, 1:], atol=1e-5)


@pytest.mark.parametrize(
    "cache", [CacheSpec(), CacheSpec(window=3, sink=1), CacheSpec(window=4, sink=1, relative=True), CacheSpec(window=2)]
)
@pytest.mark.parametrize("steps", [(1000,), (1000, 500)])
def test_the_cache_with_gradients_makes_the_same_frames(network, text, cache, steps):
    rolled = NextFrameStreamer(network, text, [5, 6], spec(cache, steps), 9)
    grown = NextFrameStreamer(network, text, [5, 6], spec(cache, steps), 9, cache=segment_cache(network, spec(cache)))
    for _ in range(8):
        without, with_gradient = rolled.next_block(), grown.next_block(gradient=True)
        assert not without.requires_grad
        assert with_gradient.requires_grad
        assert torch.allclose(without, with_gradient, atol=1e-5)
    grown.detach()
    assert not grown.previous.requires_grad


def test_what_left_the_window_is_forgotten(network, text):
    grown = NextFrameStreamer(
        network,
        text,
        [5, 6],
        spec(CacheSpec(window=3, sink=1)),
        None,
        cache=segment_cache(network, spec(CacheSpec(window=3, sink=1))),
    )
    for _ in range(8):
        grown.next_block()
    caches: Any = grown.cache
    assert list(caches[0].frames) == [0, 6, 7]


@torch.no_grad()
def test_one_forward_a_frame(network, text, monkeypatch):
    count, forward = [], network.forward
    monkeypatch.setattr(network, "forward", lambda *a, **o: (count.append(o["positions"]), forward(*a, **o))[1])
    streamer = NextFrameStreamer(network, text, [5, 6], spec(), FRAMES)
    for _ in range(FRAMES - 1):
        streamer.next_block()
    assert count == [[place] for place in range(FRAMES - 1)]  # a fixed interval, from 0 on
    with pytest.raises(StreamError, match="complete"):
        streamer.next_block()


@torch.no_grad()
def test_a_longer_beginning_is_passed_frame_by_frame(network, text):
    """Given the frames that it would have made, a stream goes on as if it had made them."""
    first = NextFrameStreamer(network, text, [5, 6], spec(), FRAMES)
    made = torch.cat([clean()[:, :1], *(first.next_block() for _ in range(FRAMES - 1))], 1)
    again = NextFrameStreamer(network, text, [5, 6], replace(spec(), given=made[:, :3]), FRAMES)
    assert again.frame == 3
    rest = torch.cat([again.next_block() for _ in range(FRAMES - 3)], 1)
    assert torch.allclose(rest, made[:, 3:], atol=1e-6)


def test_noise_alone_tells_two_seeds_apart(network, text):
    streamer = NextFrameStreamer(
        network, text.select([0, 0]), [5, 6], replace(spec(), given=clean()[:1, :1].expand(2, -1, -1, -1, -1)), 2
    )
    a, b = streamer.next_block()
    assert (a - b).abs().max() > 0.1


def test_what_cannot_stream_is_refused(network, text):
    with pytest.raises(StreamError, match="this student makes each frame from the one before"):
        NextFrameStreamer(network, text, [5, 6], replace(spec(), given=None), FRAMES)
    with pytest.raises(StreamError, match="found 3, expected 1"):
        NextFrameStreamer(network, text, [5, 6], replace(spec(), block=3), FRAMES)


# --- the stages before


def context(network: CausalWan, **changes) -> RunContext:
    roles = Roles()
    roles.add("student", network, trained=True)
    made = RunContext(
        roles=roles,
        steps=warp_timesteps((1000,), 24.0),
        shift=24.0,
        frames=FRAMES,
        block=1,
        latent_shape=SHAPE,
        cache=CacheSpec(),
        recycle="previous",
        encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
    )
    return replace(made, **changes)


def batch() -> Batch:
    text_BMD = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    return Batch(seeds=[3, 4], prompts=["", ""], text_BMD=text_BMD, latents_BFCHW=clean())


class Exact(torch.nn.Module):
    """In the network's place: the exact velocity (x - x0) / sigma of the clip, and what it was called with."""

    config = TINY

    def __init__(self, x0: torch.Tensor) -> None:
        super().__init__()
        self.x0, self.calls = x0, list[tuple[torch.Tensor, torch.Tensor]]()

    def tokens_per_frame(self, height: int, width: int) -> int:
        return height * width // 4

    def encode_text(self, text_BMD: torch.Tensor) -> torch.Tensor:
        return text_BMD

    def forward(self, x, timestep_BF, text, *, mask):
        self.calls.append((x, timestep_BF))
        noisy = x[:, :, : self.x0.shape[2]]
        return (noisy - self.x0) / (timestep_BF / 1000).clamp_min(1e-9)[..., None, None, None]


def test_adaptation_of_the_exact_velocity_is_zero_and_sees_the_frame_before():
    exact = Exact(clean()[:, 1:])
    loss = next_frame.Objective(next_frame.Config(), context(exact)).loss("student", batch()).loss  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0, abs=1e-8)
    x, timestep_BF = exact.calls[0]
    assert torch.equal(x[:, :, 2:], clean()[:, :-1])
    # One level for all frames of a clip, another for each clip.
    assert torch.equal(timestep_BF, timestep_BF[:, :1].expand_as(timestep_BF))
    assert timestep_BF[0, 0] != timestep_BF[1, 0]
    u = batch().uniform(1, "sigma")[:, 0]
    assert torch.allclose(timestep_BF[:, 0] / 1000, 24 * u / (1 + 23 * u))


def test_the_target_of_consistency_at_the_last_level_is_the_data(monkeypatch):
    exact = Exact(clean()[:, 1:])
    monkeypatch.setattr(next_frame_consistency.consistency, "CausalWan", Exact)
    objective = next_frame_consistency.Objective(next_frame_consistency.Config(), context(exact))  # type: ignore[arg-type]
    assert (len(objective.sigmas), objective.sigmas[0], objective.sigmas[-1]) == (33, 1.0, 0.0)
    monkeypatch.setattr(Batch, "uniform", lambda self, count, use: torch.full((2, count), 31.5 / 32))
    loss = objective.loss("student", batch()).loss
    assert loss.item() == pytest.approx(0, abs=1e-6)  # the exact x0 is the target's
    teacher: Any = objective.teacher
    target: Any = objective.target
    assert len(teacher.calls) == 1  # no guidance: no second branch
    x_next, timestep_BF = target.calls[0]
    assert timestep_BF.abs().max() == 0
    assert torch.allclose(x_next[:, :, :2], clean()[:, 1:], atol=1e-5)
    noise = batch().noise_like(clean()[:, 1:], "noise")
    level = objective.sigmas[31].expand(2, FRAMES - 1)
    assert torch.allclose(teacher.calls[0][0][:, :, :2], add_noise(clean()[:, 1:], noise, level))


def test_the_target_of_consistency_is_the_student_of_now(network):
    objective = next_frame_consistency.Objective(next_frame_consistency.Config(), context(network))
    with torch.no_grad():
        network.proj_out.weight.add_(1.0)
    objective.after_step(0)
    assert torch.equal(objective.target.proj_out.weight, network.proj_out.weight)  # type: ignore[union-attr]
    assert not torch.equal(objective.teacher.proj_out.weight, network.proj_out.weight)  # type: ignore[union-attr]

"""An EMA sink with gradients: by hand, against finite differences, and the limits in which nothing passes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.cache.sinks.ema import EmaSink
from astro_cli.cache.sinks.live import LiveSink
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import Streamer, StreamSpec
from astro_cli.rollout.streaming import stream

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE = (2, 4, 4)


def spec(alpha: float = 0.5, window: int = 4, relative: bool = True) -> StreamSpec:
    """Blocks of two, a sink of one block; with a window of four a block sees the sink and itself."""
    cache = CacheSpec(window=window, sink=2, relative=relative, policy="ema", alpha=alpha)
    return StreamSpec(warp_timesteps((1000, 500), 4.0), 2, SHAPE, cache, sink_gradient=True)


def network() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval()


def text() -> torch.Tensor:
    return torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(7))


def weighted(video: torch.Tensor) -> torch.Tensor:
    return (video * torch.randn(video.shape, generator=torch.Generator().manual_seed(9))).sum()


def test_the_average_by_hand():
    # S = a (a S0 + (1 - a) K1) + (1 - a) K2: dS/dK1 = a (1 - a) = .1875, dS/dK2 = 1 - a = .25, nothing to S0
    sink, start = LiveSink(), torch.zeros(1, 1, 1, 1, requires_grad=True)
    frames = [torch.full((1, 1, 1, 1), value, requires_grad=True) for value in (4.0, 8.0)]
    for number, frame in enumerate(frames):
        sink.keep(number, frame, frame, 1)
        k, _ = sink.blend(0, (start.detach(), start.detach()), number, EmaSink(0.75))
    assert k.item() == 0.75 * 0.25 * 4 + 0.25 * 8
    k.backward()
    assert [frame.grad.item() for frame in frames] == [0.1875, 0.25]
    assert start.grad is None
    assert not sink.frames


def gradients(streamed: StreamSpec, *, frames: int = 12, recompute: bool = False, exit_step: int = 1):
    """The video and its gradients."""
    model = network()
    model.gradient_checkpointing = recompute
    blocks = stream(model, model.encode_text(text()), [3], streamed, frames, exit_step=exit_step, gradient=True)
    video = torch.cat(list(blocks), 1)
    weighted(video).backward()
    return video.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("window", [4, 6])
def test_the_video_is_the_same_and_gradients_pass(relative, window):
    live = spec(window=window, relative=relative)
    video, found = gradients(live)
    expected, plain = gradients(replace(live, sink_gradient=False))
    torch.testing.assert_close(video, expected, atol=1e-5, rtol=0)
    moved = {name for name in found if (found[name] - plain[name]).abs().max() > 1e-3}
    assert {"blocks.0.attn1.to_k.weight", "blocks.1.attn1.to_v.weight"} <= moved


def test_with_alpha_one_or_before_a_frame_leaves_the_window_it_is_the_fixed_sink():
    for live, frames in ((spec(alpha=1.0), 12), (spec(window=12), 12)):
        found, plain = (gradients(each, frames=frames)[1] for each in (live, replace(live, sink_gradient=False)))
        assert difference(found, plain) < 2e-5


@pytest.mark.parametrize("exit_step", [0, 1])
def test_gradient_checkpointing_gives_the_same_gradients(exit_step):
    stored, recomputed = (gradients(spec(), recompute=each, exit_step=exit_step)[1] for each in (False, True))
    assert difference(stored, recomputed) < 2e-5


def test_the_gradient_is_that_of_the_context_pass_of_the_evicted_block():
    """Block 2 sees S = a S0 + (1 - a) K1 and itself. Moving the weights of block 1's context pass alone moves block 2
    as the gradient that passes through the sink says.
    """
    model = network()
    direction = {
        name: torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name)))
        for name, p in model.named_parameters()
    }

    def third_block(amount: float) -> torch.Tensor:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                p.add_(direction[name], alpha=amount)
            streamer = Streamer(
                model, model.encode_text(text()), [3], replace(spec(), sink_gradient=False), 6, join=False
            )
            streamer.next_chunk(4, 0)
            streamer.network, own = moved, streamer.text
            streamer.text = moved.encode_text(text())
            streamer.write_finished()
            streamer.network, streamer.text = model, own
            return weighted(streamer.next_block(0)).double()

    step = 2e-3
    measured = ((third_block(step) - third_block(-step)) / (2 * step)).item()

    def slope(streamed: StreamSpec) -> float:
        model.zero_grad(set_to_none=True)
        streamer = Streamer(model, model.encode_text(text()), [3], streamed, 6)
        streamer.next_chunk(4, 0, gradient=True)
        weighted(streamer.next_block(0, gradient=True)).backward()
        return sum((p.grad * direction[n]).sum().item() for n, p in model.named_parameters() if p.grad is not None)

    assert slope(spec()) - slope(replace(spec(), sink_gradient=False)) == pytest.approx(measured, rel=0.02)
    assert abs(measured) > 0.1

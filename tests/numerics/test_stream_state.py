"""A running stream in a checkpoint: saved in the middle of a video and loaded, it goes on with the same bits.

Also what a training step takes of it: chunks with exit steps of their own, renewed text, a window that begins with an
image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import StreamError
from astro_cli.core.flow import warp_timesteps
from astro_cli.models import weights
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.engine import Streamer, StreamSpec
from astro_cli.rollout.reencoding import image_latent
from astro_cli.rollout.streaming import generate, stream
from astro_cli.rollout.switching import SwitchRule
from astro_cli.sampling.kernel import Kernel
from astro_cli.training import checkpoints

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE = (2, 4, 4)
CACHES = {
    "everything": CacheSpec(),
    "window": CacheSpec(window=6, sink=0),
    "sink": CacheSpec(window=6, sink=2),
    "relative": CacheSpec(window=6, sink=2, relative=True),
    "ema": CacheSpec(window=6, sink=2, policy="ema", alpha=0.5),
    "ema relative": CacheSpec(window=6, sink=2, relative=True, policy="ema", alpha=0.5),
    "least": CacheSpec(window=4, sink=2, relative=True, policy="ema", alpha=0.5),
}


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval().requires_grad_(False)


def text(size: int, seed: int = 7) -> torch.Tensor:
    states = torch.randn(size, 4, 5, generator=torch.Generator().manual_seed(seed))
    states[:, 2:] = 0
    return states


def spec(cache: CacheSpec = CACHES["relative"], **more) -> StreamSpec:
    return StreamSpec(warp_timesteps((1000, 750, 500), 4.0), 2, SHAPE, cache, **more)


def started(model: CausalWan, how: StreamSpec, frames: int, length: int | None = 20) -> Streamer:
    """A stream with so many frames finished, the newest block's context not written yet."""
    streamer = Streamer(model, model.encode_text(text(2), fold_padding=True), [1, 2], how, length)
    while streamer.frame < frames:
        streamer.next_block()
    return streamer


def saved(streamer: Streamer, path: Path) -> dict[str, torch.Tensor]:
    """Its state, by way of a file."""
    weights.write(path / "stream.safetensors", streamer.state())
    return weights.read(path / "stream.safetensors")


def same_future(one: Streamer, other: Streamer, blocks: int = 4) -> bool:
    return all(torch.equal(one.next_block(), other.next_block()) for _ in range(blocks))


@torch.no_grad()
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("frames", [0, 2, 6, 10])
def test_a_loaded_stream_goes_on_with_the_same_bits(model, tmp_path, cache, frames):
    """Before the first block, before the window is full, as it fills, and after frames have left it."""
    streamer = started(model, spec(CACHES[cache]), frames)
    loaded = Streamer.load(model, spec(CACHES[cache]), saved(streamer, tmp_path))
    assert same_future(streamer, loaded)
    for layer in range(2):
        for one, other in zip(streamer.cache.chronological(layer), loaded.cache.chronological(layer), strict=True):
            assert torch.equal(one, other)


@torch.no_grad()
@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("written", [True, False])
def test_also_without_end_and_with_the_context_written_or_not(model, tmp_path, join, written):
    streamer = Streamer(model, model.encode_text(text(2)), [1, 2], spec(), join=join)
    streamer.next_chunk(10)
    if written:
        streamer.write_finished()
    loaded = Streamer.load(model, spec(), saved(streamer, tmp_path))
    assert loaded.join == join
    assert same_future(streamer, loaded)


@torch.no_grad()
@pytest.mark.parametrize("renew", [True, False])
@pytest.mark.parametrize("cache", ["sink", "ema relative"])
def test_also_before_and_after_a_switch(model, tmp_path, cache, renew):
    """A recache reads the recent blocks, a renewed sink begins later than frame 0; both are in the state."""
    how, rule, new = spec(CACHES[cache]), SwitchRule(renew_sink=renew), model.encode_text(text(2, seed=8))
    streamer = started(model, how, 10)
    before = Streamer.load(model, how, saved(streamer, tmp_path))
    for each in (streamer, before):
        each.switch(new, rule)
        each.next_block()
    after = Streamer.load(model, how, saved(before, tmp_path))
    assert after.cache.first == (4 if renew else 0)
    for each in (streamer, after):  # again: the recent blocks are there too
        each.switch(model.encode_text(text(2)), rule)
    assert same_future(streamer, after, 3)


@torch.no_grad()
def test_also_a_video_that_continues_given_frames(model, tmp_path):
    given = torch.randn(2, 5, *SHAPE, generator=torch.Generator().manual_seed(1))
    how = spec(CacheSpec(window=5, sink=1), first_frame_alone=True, given=given)
    streamer = Streamer(model, model.encode_text(text(2)), [1, 2], how, 21)
    assert streamer.recent().shape[1] == 5
    loaded = Streamer.load(model, how, saved(streamer, tmp_path))
    assert loaded.frame == 5
    assert same_future(streamer, loaded)


@torch.no_grad()
def test_the_state_does_not_move_with_the_stream(model):
    streamer = started(model, spec(), 10)
    state = streamer.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    streamer.next_chunk(6)
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


@torch.no_grad()
def test_a_checkpoint_holds_a_stream_as_it_holds_an_objectives_state(model, tmp_path):
    streamer = started(model, spec(), 10)
    checkpoints.save(tmp_path / "checkpoints", stage=0, step=0, rows=0, groups={"objective": streamer.state()})
    found, faults = checkpoints.load_newest(tmp_path / "checkpoints", tmp_path / "metrics.jsonl", [3])
    assert not faults
    assert found is not None
    assert same_future(streamer, Streamer.load(model, spec(), found.group("objective")))


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"cache": CacheSpec(window=8, sink=2, relative=True)}, "cache.window"),
        ({"cache": CacheSpec(window=6, sink=2)}, "cache.relative"),
        ({"cache": CacheSpec(window=6, sink=2, relative=True, policy="ema")}, "cache.policy"),
        ({"kernel": Kernel("cps", 0.5)}, "sampler.kind"),
        ({"steps": warp_timesteps((1000, 500), 4.0)}, "sampler.steps"),
        ({"block": 1}, "video.block"),
    ],
)
def test_a_stream_of_another_spec_is_refused(model, change, key):
    state = started(model, spec(), 4).state()
    with pytest.raises(StreamError) as error:
        Streamer.load(model, replace(spec(), **change), state)
    assert error.value.key == key


@torch.no_grad()
def test_a_damaged_state_or_another_network_is_refused(model):
    state = started(model, spec(), 4).state()
    for name in ("seeds", "recent.0", "cache.k.1", "cache.at", "spec"):
        with pytest.raises(StreamError, match="saved stream"):
            Streamer.load(model, spec(), {key: value for key, value in state.items() if key != name})
    deeper = CausalWan(TINY.model_copy(update={"num_layers": 3}))
    with pytest.raises(StreamError, match=r"k\.2"):
        Streamer.load(deeper, spec(), state)


@torch.no_grad()
@pytest.mark.parametrize("folded", [True, False])
def test_text_is_renewed_after_the_weights_changed(model, folded):
    """Stale text states keep the keys and values of the old weights; renewed ones are those the new weights would
    make.
    """
    network = CausalWan(TINY).requires_grad_(False)
    network.load_state_dict(model.state_dict())
    stale, renewed = (
        Streamer(network, network.encode_text(text(2), fold_padding=folded), [1, 2], spec(), 20) for _ in range(2)
    )
    for each in (stale, renewed):
        each.next_chunk(4)
    for parameter in network.parameters():
        parameter.add_(0.02)
    renewed.renew_text()
    fresh = network.encode_text(text(2), fold_padding=folded)
    assert renewed.text.folded == folded
    for one, other, old in zip(renewed.text.layers, fresh.layers, stale.text.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert not torch.allclose(one[0], old[0], atol=1e-3)
    assert (stale.next_block() - renewed.next_block()).abs().max() > 1e-3


def test_renewed_text_carries_gradients_of_this_step_only(model):
    """A persistent stream: each training step makes the next chunk, back-propagates, and leaves no graph to the
    next.
    """
    network = CausalWan(TINY)
    network.load_state_dict(model.state_dict())
    streamer = Streamer(network, network.encode_text(text(1)), [3], spec(), 20)
    for _ in range(2):
        network.zero_grad()
        streamer.renew_text()
        streamer.next_chunk(4, exit_step=1, gradient=True).pow(2).mean().backward()
        grad = network.condition_embedder.text_embedder.linear_1.weight.grad
        assert grad is not None
        assert grad.abs().max() > 0


@torch.no_grad()
def test_one_exit_step_for_all_blocks_is_the_same_as_before(model):
    for exit_step in range(3):
        video = torch.cat(list(stream(model, model.encode_text(text(2)), [1, 2], spec(), 12, exit_step=exit_step)), 1)
        streamer = Streamer(model, model.encode_text(text(2)), [1, 2], spec(), 12)
        assert torch.equal(streamer.next_chunk(12, exit_step), video)
    assert torch.equal(
        video, generate(model, text(2), [1, 2], spec(), 12)
    )  # the last step is where a block ends anyway


@torch.no_grad()
def test_every_block_may_have_its_own_exit_step(model, monkeypatch):
    """Steps made: exit step + 1. Chunks of a stream may differ."""
    calls = []
    real = Streamer.predict
    monkeypatch.setattr(
        Streamer, "predict", lambda self, x, t, start, **kw: (calls.append(start), real(self, x, t, start, **kw))[1]
    )
    streamer = Streamer(model, model.encode_text(text(1)), [3], spec(), 12)
    streamer.next_chunk(6, (0, 2, 1))
    streamer.next_chunk(4, 0)
    streamer.next_chunk(2)
    assert [calls.count(start) for start in range(0, 12, 2)] == [1, 3, 2, 1, 1, 3]


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "exit_step", "word"),
    [
        (3, None, "whole blocks"),
        (0, None, "whole blocks"),
        (4, (0,), "one for each of 2 blocks"),
        (2, 3, "expected 0 to 2"),
        (2, -1, "expected 0 to 2"),
        (14, None, "complete: 12"),
    ],
)
def test_chunks_that_cannot_be_made_are_refused(model, frames, exit_step, word):
    with pytest.raises(StreamError, match=word):
        Streamer(model, model.encode_text(text(1)), [3], spec(), 12).next_chunk(frames, exit_step)


class PairCodec:
    """A causal codec in small: the first latent is one frame, each later one the mean of two.

    What an image's latent is depends on its place.
    """

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        first, later = latents[:, :1], latents[:, 1:]
        pairs = torch.stack((later - 1, later + 1), 2).flatten(1, 2)
        return torch.cat((first + 10, pairs), 1)  # an image's latent is 10 below its frame

    def decoder(self) -> StreamingDecoder:
        def step(latents: torch.Tensor, begun: list) -> tuple[torch.Tensor, list]:
            frames = self.decode(latents if begun == [None] else torch.cat((latents[:, :1], latents), 1))
            return (frames if begun == [None] else frames[:, 1:]), ["begun"]

        return StreamingDecoder(step, [None])

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.cat((frames[:, :1] - 10, frames[:, 1:].unflatten(1, (-1, 2)).mean(2)), 1)


def test_an_image_latent_is_the_last_frame_shown():
    """Latents 0 .. 4 show frames 10, 0, 2, 1, 3, 2, 4, 3, 5. Latent 2 shows 3 last, whose image latent is -7."""
    video = torch.arange(5.0).view(1, 5, 1, 1, 1)
    codec = PairCodec()
    assert codec.decode(video).flatten().tolist() == [10, 0, 2, 1, 3, 2, 4, 3, 5]
    assert image_latent(codec, video[:, :3]).flatten().tolist() == [-7]  # type: ignore[arg-type]
    assert image_latent(codec, video[:, 1:3]).flatten().tolist() == [-7]  # type: ignore[arg-type]


@torch.no_grad()
def test_a_stream_may_begin_with_the_image_that_another_ended_with(model):
    """What the next video's cache holds of it is what an image given from outside would leave there."""
    video = generate(model, text(1), [3], spec(), 8)
    image = image_latent(PairCodec(), video)  # type: ignore[arg-type]
    assert image.shape == (1, 1, *SHAPE)
    assert torch.allclose(image, video[:, -1:] + 1 - 10)
    how = spec(CacheSpec(window=5, sink=1), first_frame_alone=True, given=image)
    continued = generate(model, text(1), [4], how, 9)
    assert torch.equal(continued[:, :1], image)
    other = generate(model, text(1), [4], replace(how, given=video[:, -1:]), 9)
    assert (continued[:, 1:] - other[:, 1:]).abs().max() > 1e-2

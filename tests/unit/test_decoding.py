"""Clips from the middle of a video have the frames of the whole video, also after a fork, and gradients on demand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from wan_folder import tiny_vae

from astro_cli.models.shapes_backbone import ShapesBackbone, load_shapes_backbone
from astro_cli.models.vae import WanVAE
from astro_cli.models.wan_backbone import WanBackbone

CLIP = 2
SAME = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def wan() -> WanBackbone:
    text: Any = None
    return WanBackbone(text, WanVAE(tiny_vae()))


@pytest.fixture(scope="module")
def shapes() -> ShapesBackbone:
    return load_shapes_backbone()


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cut(backbone: WanBackbone, history_BFCHW: torch.Tensor, clip_BFCHW: torch.Tensor) -> torch.Tensor:
    """The clips' frames, cut out of the whole videos."""
    whole = backbone.decode(torch.cat((history_BFCHW, clip_BFCHW), 1))
    past = history_BFCHW.shape[1]
    return whole[:, backbone.num_frames(past) if past else 0 :]


@pytest.mark.parametrize(("past", "frames"), [(0, 5), (1, 8), (4, 8)])  # W = 2: 4 W - 3 frames at the start, else 4 W
def test_candidates_have_the_frames_of_the_whole_video(wan, past, frames):
    history, clip, owner = drawn(0, 3, past, 16, 2, 3), drawn(1, 6, CLIP, 16, 2, 3), torch.tensor([0, 0, 2, 1, 1, 2])
    decoder = wan.decoder().skip(history)
    found = decoder.fork(owner).push(clip)
    assert found.shape[1] == wan.num_frames(CLIP, past) == frames
    assert found.std() > 0.05  # not gray on gray
    torch.testing.assert_close(found, cut(wan, history[owner], clip), **SAME)
    again = decoder.fork(owner).push(clip)  # a fork leaves the history as it was
    assert torch.equal(again, found)
    if past:
        assert (wan.decode(clip) - found[:, 3:]).abs().max() > 0.01  # as if it opened the video: another picture


def test_a_history_longer_than_a_decoders_reach_is_cut_to_it(wan, monkeypatch):
    """Traced back from 4 n - 3, the first frame of latent n, two frames a convolution.

    13 convolutions: 4 n - 29; at half the rate 2 n - 14, time_conv and 6 convolutions: 2 n - 28; at the latents' rate
    n - 14, time_conv and 6 + 4 + 1 convolutions: n - 38.
    """
    latents = drawn(2, 1, 41, 16, 1, 1).requires_grad_()
    video = wan.decode(latents, gradient=True)
    (seen,) = torch.autograd.grad(video[:, -4].sum(), latents)
    assert int(seen.abs().sum((0, 2, 3, 4)).nonzero()[0]) == 40 - 38
    assert wan.decoder().reach == 38
    history, clip, decoded = latents.detach()[:, :40], latents.detach()[:, 40:], []
    step = wan.decoder().step
    monkeypatch.setattr(wan.vae, "_decode", lambda pushed, features: decoded.append(pushed) or step(pushed, features))
    torch.testing.assert_close(wan.decoder().skip(history).push(clip), video[:, -4:].detach(), **SAME)
    assert len(decoded) == 38 + 1


def test_only_a_video_begins_with_a_single_frame(shapes):
    assert shapes.num_frames(2) == 1 + 4
    assert shapes.num_frames(2, 3) == 4 + 4  # after a history of three latents


def slope(
    backbone: Any,
    history: torch.Tensor,
    latents: torch.Tensor,
    weights: torch.Tensor,
    way: torch.Tensor,
    step: float = 1e-2,
) -> float:
    """Central difference of the weighted sum of the frames along a direction of the latents."""
    high, low = (
        backbone.decoder().skip(history).push(latents + sign * step * way).double().mul(weights).sum()
        for sign in (1, -1)
    )
    return ((high - low) / (2 * step)).item()


@pytest.mark.parametrize("name", ["wan", "shapes"])
def test_gradients_to_latents_are_those_of_finite_differences(name, request):
    backbone = request.getfixturevalue(name)
    cells = (backbone.channels, 2, 3) if name == "wan" else (backbone.channels, 8, 8)
    history, latents = drawn(7, 1, 2, *cells), drawn(8, 1, CLIP, *cells)
    frames = backbone.decoder().skip(history).push(latents.requires_grad_(), gradient=True)
    assert torch.equal(frames.detach(), backbone.decoder().skip(history).push(latents))
    weights = drawn(9, *frames.shape)
    (gradient,) = torch.autograd.grad((frames * weights).sum(), latents)
    steepness = gradient.norm().item()
    for way in (gradient, drawn(10, *latents.shape), drawn(11, *latents.shape)):
        unit = way / way.norm()
        expected = slope(backbone, history, latents.detach(), weights, unit)
        assert (gradient * unit).sum().item() == pytest.approx(expected, abs=2e-3 * steepness)
    assert steepness > 0.5


def test_gradients_reach_latents_that_were_pushed_before_only_if_they_were_to(wan):
    """A later frame depends on earlier latents through the features, and so does its gradient, in a fork too."""
    latents, owner = drawn(12, 1, 3, 16, 2, 3).requires_grad_(), torch.tensor([0, 0])

    def gradient(first: bool) -> torch.Tensor:
        decoder = wan.decoder()
        decoder.push(latents[:, :2], gradient=first)
        frames = decoder.fork(owner).push(latents[:, 2:].expand(2, -1, -1, -1, -1), gradient=True)
        return torch.autograd.grad(frames.sum(), latents)[0].abs().sum((0, 2, 3, 4))

    through, cut_off = gradient(True), gradient(False)
    assert bool((through > 0).all())
    assert cut_off[:2].tolist() == [0, 0]
    assert cut_off[2] > 0
    assert not wan.decode(latents).requires_grad

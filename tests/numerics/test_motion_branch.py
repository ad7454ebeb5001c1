"""The flow branch (TeleBoost section 2.4): exact flow of renders by hand, Charbonnier's penalty, identity at the start,
and what the two terms of the loss train.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from wan_folder import tiny_vae

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.core.rng import stream
from astro_cli.models.flow_branch import FlowDecoder, flow_decoder
from astro_cli.models.shapes_backbone import ShapesBackbone
from astro_cli.models.vae import WanVAE
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.objectives.sft_flow import Config, Objective, charbonnier, coarser, state_hash
from astro_cli.shapes.flow import exact_flow
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import GRID, Layout, random_layout, render
from astro_cli.shapes.video_codec import VideoCodec
from tests.tiny_policy import tiny_policy

TAIL = "over a gray checkered background"


def layout(x: float = 16.0, y: float = 16.0, phase: float = 0.0) -> Layout:
    """One object at a place, without jitter, at the nominal speed."""
    one = torch.ones(1, 1)
    return Layout(torch.tensor([[[x, y]]]), phase * one, 0 * one, one, torch.zeros(1, 2))


def initialise(module: nn.Module) -> None:
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=rng))


def video_codec() -> VideoCodec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = VideoCodec(width=8)
    codec.filters.copy_(0.1 * torch.randn(codec.filters.shape, generator=torch.Generator().manual_seed(1)))
    return codec.requires_grad_(False)


@pytest.mark.parametrize(("motion", "camera", "own", "ground"), [
    ("moves right slowly", "", (1.5, 0.0), (0.0, 0.0)),
    ("moves up fast", "", (0.0, -3.0), (0.0, 0.0)),
    ("stays still", " while the camera pans left", (1.0, 0.0), (1.0, 0.0)),
    ("moves right slowly", " while the camera pans down", (1.5, -1.0), (0.0, -1.0)),
])  # fmt: skip
def test_the_flow_of_renders_by_hand(motion, camera, own, ground):
    """At the object's centre its step less the camera's, in a corner the camera's; twice that at twice the size."""
    scene = parse(f"a small red square {motion} {TAIL}{camera}")
    for size, scale in ((32, 1), (64, 2)):
        flow = exact_flow([scene], layout(), 3, size)
        assert flow.shape == (1, 2, 2, size, size)
        torch.testing.assert_close(flow[0, 0, :, size // 2, size // 2], scale * torch.tensor(own))
        torch.testing.assert_close(flow[0, :, :, 0, 0], scale * torch.tensor([ground, ground]))


def test_a_bounce_turns_between_its_frames():
    # phase 0 of the period of 8 frames is an end: the object goes one way for 4 frames, then back
    scene = parse(f"a small red square bounces horizontally slowly {TAIL}")
    steps = exact_flow([scene], layout(), 9)[0, :, 0].flatten(1)
    middle = torch.stack([row[row.abs().argmax()] for row in steps])
    torch.testing.assert_close(middle, torch.tensor([1.5] * 4 + [-1.5] * 4))


def test_a_frame_moved_by_its_flow_is_the_next_one():
    """By whole pixels: every pixel of the background and of the object is found where the flow says."""
    scene = parse(f"a large red square moves left fast {TAIL} while the camera pans up")
    frames, flow = render([scene], layout(), 2)[0], exact_flow([scene], layout(), 2)[0, 0].round().long()
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    there = frames[1][:, (rows + flow[1]) % 32, (columns + flow[0]) % 32]
    gap = (there - frames[0]).abs().amax(0)
    assert gap[12:20, 12:20].max() < 0.02  # inside of the object
    assert (gap > 0.02).float().mean() < 0.15  # its rim, and what it hides


def test_charbonnier_by_hand():
    flow, target = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    flow[0, 0, 0], flow[0, 0, 1] = 3.0, 4.0
    assert charbonnier(flow, target, 1e-9).item() == pytest.approx(5)  # the end-point error
    assert charbonnier(flow, target, 12.0).item() == pytest.approx(13)  # sqrt(25 + 144)
    assert charbonnier(target, target, 0.5).item() == 0.5


def test_flows_meet_at_the_coarser_resolution():
    fine = torch.arange(16.0).view(1, 1, 1, 4, 4).expand(1, 1, 2, 4, 4)
    coarse = torch.zeros(1, 1, 2, 2, 2)
    for first, second in (coarser(fine, coarse), coarser(coarse, fine)[::-1]):
        # means of 0 1 4 5, of 2 3 6 7, and 8 further down
        assert first[0, 0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
        assert second.shape == first.shape


@pytest.mark.parametrize("name", ["shapes", "wan"])
def test_a_fresh_branch_changes_no_bit_and_sees_every_pair_of_frames(name):
    if name == "shapes":
        codec = video_codec()
        backbone, size, cells = ShapesBackbone(codec), 4, 4
    else:
        codec = tiny_vae().requires_grad_(False)
        backbone, size, cells = WanVAE(codec), 8, 3
    latents = torch.randn(2, 3, 16, cells, cells, generator=torch.Generator().manual_seed(2))
    before = backbone.decode(latents)
    module = flow_decoder(codec)
    module.start(initialise)
    with module.watching() as flows:
        assert torch.equal(backbone.decode(latents), before)
    flow = module.flow(flows, 2)
    assert flow.shape == (2, 8, 2, cells * size // 2, cells * size // 2)
    with module.watching() as flows:  # as a stream too
        decoder = backbone.decoder()
        parts = [decoder.push(latents[:, :1]), decoder.push(latents[:, 1:])]
        torch.testing.assert_close(torch.cat(parts, 1), before)
    torch.testing.assert_close(module.flow(flows, 2), flow, atol=1e-4, rtol=1e-4)
    nn.init.normal_(module.branch.fuse.weight, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(backbone.decode(latents), before)


def run_context(codec: VideoCodec, module: FlowDecoder) -> RunContext:
    roles, backbone = tiny_policy(1), ShapesBackbone(codec)
    roles.modules["student"].requires_grad_(False)
    roles.add("decoder", module, trained=True)
    return RunContext(
        roles=roles,
        steps=warp_timesteps((1000, 500), 4.0),
        shift=4.0,
        frames=2,
        block=2,
        latent_shape=(16, 8, 8),
        cache=CacheSpec(),
        encode_text=lambda prompts: torch.zeros(len(prompts), 4, 5),
        decoder=backbone.decoder,
        bidirectional=True,
    )


def batch(codec: VideoCodec) -> Batch:
    scenes = [parse(f"a large red circle moves {way} slowly {TAIL}") for way in ("left", "down")]
    where = random_layout(scenes, [stream("test-flow", row) for row in range(2)], world=GRID)
    frames = render(scenes, where, 5)
    flow = exact_flow(scenes, where, 5)
    return Batch([0, 1], ["", ""], latents_BFCHW=codec.encode(frames), frames_BTCHW=frames, flow_BN2HW=flow)


def test_the_loss_is_the_codecs_error_and_the_penalty():
    codec = video_codec()
    module = flow_decoder(codec)
    module.start(initialise)
    own, given = run_context(codec, module), batch(codec)
    assert given.latents_BFCHW is not None
    assert given.frames_BTCHW is not None
    out = Objective(Config(flow_weight=0.5), own).loss("decoder", given)
    mse = (ShapesBackbone(codec).decode(given.latents_BFCHW) - given.frames_BTCHW).square().mean().item()
    assert out.metrics["mse"] == pytest.approx(mse, rel=1e-5)
    assert out.loss.item() == pytest.approx(mse + 0.5 * out.metrics["flow_penalty"], rel=1e-5)
    assert out.metrics["flow_penalty"] >= out.metrics["flow_epe"]


def test_both_terms_train_the_branch_and_nothing_but_the_decoder_is_trained():
    codec = video_codec()
    module = flow_decoder(codec)
    module.start(initialise)
    own, given = run_context(codec, module), batch(codec)
    before = state_hash(own.roles.modules["student"]), codec.filters.clone()
    for weight in (0.0, 1.0):
        module.zero_grad()
        Objective(Config(flow_weight=weight), own).loss("decoder", given).loss.backward()
        gradients = {name: p.grad.abs().max().item() for name, p in module.named_parameters() if p.grad is not None}
        assert gradients["branch.fuse.weight"] > 0  # the picture's error opens the fusion
        assert (gradients.get("branch.head.weight", 0) > 0) == (weight > 0)
        assert (gradients["branch.features.0.weight"] > 0) == (weight > 0)  # behind a fusion of zeros
    assert all(p.grad is None for p in own.roles.modules["student"].parameters())
    assert state_hash(own.roles.modules["student"]) == before[0]
    assert torch.equal(codec.filters, before[1])

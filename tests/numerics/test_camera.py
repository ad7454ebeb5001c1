"""The camera: its path and its channels by hand, the renderer and the measure that agree, passes that see it, segments
with new moves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from astro_cli.cache.spec import CacheSpec
from astro_cli.models.camera import ORIGIN_DEVIATION, camera_channels, directions
from astro_cli.models.wan.config import CAMERA_CHANNELS, WanConfig
from astro_cli.objectives.adversarial import Config, Objective
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.rollout.engine import frame_noise
from astro_cli.rollout.next_frame import NextFrameStreamer, conditions, forced_velocity
from astro_cli.rollout.spec import StreamSpec
from astro_cli.shapes.camera import STEP, measured_steps, of_latents, path, random_moves
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import FREE, GRID, random_layout, render
from eval.world.shapes_camera import scores
from tests.tiny_policy import next_frame_context

TINY = WanConfig(
    dim=24,
    ffn_dim=32,
    num_heads=2,
    num_layers=2,
    in_channels=2,
    extra_channels=2 + CAMERA_CHANNELS,
    freq_dim=8,
    text_dim=5,
    text_len=4,
)
FRAMES = 5
STILL = "a large red circle stays still over a gray checkered background"


def clips(moves: torch.Tensor | None, frames: int, text: str = STILL, world=GRID) -> torch.Tensor:
    scenes = [parse(text)]
    layout = random_layout(scenes, [torch.Generator().manual_seed(7)], world=world)
    return render(scenes, layout, frames, camera_BT2=None if moves is None else path(moves))


def test_a_path_by_hand():
    moves = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, -4.0]]])
    expected = [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0], [4, -1], [4, -2], [4, -3], [4, -4]]
    assert path(moves).tolist() == [expected]


@pytest.mark.parametrize("way", [("left", (-4.0, 0.0)), ("up", (0.0, -4.0))])
def test_a_constant_path_is_the_pan_of_a_caption(way):
    name, move = way
    panned = clips(None, 9, f"{STILL} while the camera pans {name}")
    moved = clips(torch.tensor([[(0.0, 0.0), move, move]]), 9)
    assert torch.allclose(panned, moved, atol=1e-5)


def test_channels_by_hand():
    moves = torch.tensor([[[4.0, 0.0], [0.0, -4.0]]])
    origin, direction = camera_channels(moves, 8, 8).split(3, 2)
    # one of five moves to each side: the variance along an axis is 2 / 5 x 16 = 6.4
    assert pytest.approx(6.4**0.5) == ORIGIN_DEVIATION
    assert torch.allclose(origin[0, :, :, 3, 5], torch.tensor([[4, 0, 0], [0, -4, 0]]) / ORIGIN_DEVIATION)
    assert torch.equal(direction[0, 0], direction[0, 1])  # the camera does not turn
    assert torch.allclose(direction[0, 0].std((1, 2), correction=0), torch.ones(3), atol=1e-4)
    assert torch.allclose(direction[0, 0].mean((1, 2)), torch.zeros(3), atol=1e-4)
    # the cell in the corner of 8 x 8: (-14, -14, 32) / |.|
    ray = torch.tensor([-14.0, -14.0, 32.0])
    assert torch.allclose(directions(8, 8)[:, 0, 0], ray / ray.norm())


def test_origins_have_unit_deviation_over_the_moves_that_are_drawn():
    moves = random_moves(list(range(400)), 9)
    assert moves[:, 0].abs().max() == 0
    origin = camera_channels(moves[:, 1:], 2, 2)[:, :, :2]
    assert origin.std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(moves[:3], random_moves([0, 1, 2], 9))  # each from its own seed


def test_the_measure_finds_the_renderers_moves():
    moves = random_moves([1], 9)
    moves[0, 1:6] = torch.tensor([[4.0, 0], [-4, 0], [0, 4], [0, -4], [0, 0]])
    shown = clips(moves, 33)
    measured = measured_steps(shown)
    for which in ("background", "object"):
        assert (of_latents(measured[which]) - moves[:, 1:]).abs().max() < 0.2, which
    agreed = scores(shown, moves)
    assert agreed["camera_agreement"].item() == 1
    assert agreed["camera_error"].item() < 0.15
    # A clip that rests misses every move by its length, and agrees where none was asked for.
    resting = scores(clips(torch.zeros_like(moves), 33), moves)
    still = (moves[:, 1:] == 0).all(-1).float().mean().item()
    assert resting["camera_agreement"].item() == pytest.approx(still)
    assert resting["camera_error"].item() == pytest.approx(STEP * (1 - still), abs=0.1)


def test_a_camera_moves_the_object_against_it():
    """An object of the world without a grid, which moves by itself, too."""
    moves = torch.tensor([[[0.0, 0.0], [4.0, 0.0]]])
    text = STILL.replace("stays still", "moves right slowly")
    measured = measured_steps(clips(moves, 5, text, FREE))
    assert torch.allclose(measured["background"][0, :, 0], torch.ones(4), atol=0.05)
    assert measured["object"][0, :, 0].mean().item() == pytest.approx(1 - 1.5, abs=0.2)  # pan less its own speed


# --- what a model sees


@pytest.fixture
def run_context() -> RunContext:
    return next_frame_context(TINY, FRAMES, CacheSpec(window=3, sink=1))


def batch() -> Batch:
    rng = torch.Generator().manual_seed(3)
    text, clean = torch.randn(2, 4, 5, generator=rng), torch.randn(2, FRAMES, 2, 4, 4, generator=rng)
    moves = random_moves([1, 2], FRAMES)
    return Batch(seeds=[1, 2], prompts=["", ""], text_BMD=text, latents_BFCHW=clean, moves_BF2=moves)


def test_a_frame_is_made_for_the_move_that_leads_to_it():
    """The pass over frame i sees the frame before it and the move between the two."""
    given = batch()
    assert given.latents_BFCHW is not None
    assert given.moves_BF2 is not None
    seen = conditions(given.latents_BFCHW, "previous", given.moves_BF2)
    assert torch.equal(seen[:, :, :2], given.latents_BFCHW[:, :-1])
    assert torch.equal(seen[:, :, 2:], camera_channels(given.moves_BF2, 4, 4)[:, 1:])


@torch.no_grad()
def test_one_pass_and_a_stream_see_the_same_camera(run_context):
    model: Any = run_context.roles.modules["student"]
    given, cache = batch(), CacheSpec()
    assert given.latents_BFCHW is not None
    assert given.moves_BF2 is not None
    text = model.encode_text(given.text_BMD)
    first, moves = given.latents_BFCHW[:, :1], given.moves_BF2
    spec = StreamSpec(run_context.steps, 1, (2, 4, 4), cache, given=first, recycle="previous", moves=moves)
    streamer = NextFrameStreamer(model, text, [5, 6], spec, FRAMES)
    made = torch.cat([streamer.previous, *(streamer.next_block() for _ in range(FRAMES - 1))], 1)
    noise = frame_noise(spec, [5, 6], range(1, FRAMES), "x_T", torch.device("cpu"))
    timestep = torch.full((2, FRAMES - 1), 1000.0)
    v = forced_velocity(model, noise, timestep, text, conditions(made, "previous", given.moves_BF2), None, 0)
    assert torch.allclose(noise - v, made[:, 1:], atol=1e-5)
    turned = NextFrameStreamer(model, text, [5, 6], replace(spec, moves=moves + 4), FRAMES)
    assert not torch.allclose(turned.next_block(), made[:, 1:2], atol=1e-3)


@torch.no_grad()
def test_the_last_move_goes_on(run_context):
    model: Any = run_context.roles.modules["student"]
    given = batch()
    assert given.latents_BFCHW is not None
    text, first = model.encode_text(given.text_BMD), given.latents_BFCHW[:, :1]
    spec = StreamSpec(run_context.steps, 1, (2, 4, 4), CacheSpec(), given=first, recycle="previous")
    once = torch.tensor([[[0.0, 0.0], [4.0, 0.0]]]).expand(2, -1, -1)
    always = torch.cat((once, once[:, -1:].expand(-1, 3, -1)), 1)
    streams = [NextFrameStreamer(model, text, [5, 6], replace(spec, moves=moves), FRAMES) for moves in (once, always)]
    for _ in range(FRAMES - 1):
        short, long = (stream.next_block() for stream in streams)
        assert torch.equal(short, long)


def test_segments_behind_the_first_have_new_moves_and_share_those_of_the_overlap(run_context):
    objective, given = Objective(Config(extensions=2, overlap=2), run_context), batch()
    first, second, third = objective.moves(given)
    assert given.moves_BF2 is not None
    assert first is not None
    assert second is not None
    assert third is not None
    assert torch.equal(first, given.moves_BF2)
    assert torch.equal(second[:, :2], first[:, -2:])
    assert torch.equal(third[:, :2], second[:, -2:])
    assert not torch.equal(second[:, 2:], third[:, 2:])
    assert objective.moves(replace(given, moves_BF2=None)) == [None] * 3


@pytest.mark.parametrize("config", [Config(), Config(forcing="teacher"), Config(extensions=1, overlap=1)])
def test_both_roles_train_on_clips_with_a_camera(run_context, config):
    objective, given = Objective(config, run_context), batch()
    for role in ("student", "discriminator"):
        for out in objective.loss(role, given):
            out.loss.backward()
        weight: Any = run_context.roles.modules[role].get_submodule("trunk" if role == "discriminator" else "")
        assert weight.patch_embedding.weight.grad[:, 4:].abs().max() > 0
        run_context.roles.modules[role].zero_grad(set_to_none=True)


def test_the_discriminator_sees_the_camera(run_context):
    objective, given = Objective(Config(), run_context), batch()
    judge: Any = run_context.roles.modules["discriminator"]
    text = judge.encode_text(given.text_BMD)
    assert given.latents_BFCHW is not None
    assert given.moves_BF2 is not None
    asked = objective.logits(given, judge, text, given.latents_BFCHW)
    other = objective.logits(given, judge, text, given.latents_BFCHW, moves=given.moves_BF2 + 4)
    assert not torch.allclose(asked, other)

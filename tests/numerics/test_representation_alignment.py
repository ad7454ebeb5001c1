"""Representation alignment: the renderer's maps, their order in tokens, and the loss against plain flow matching."""

import dataclasses
import itertools
import math

import pytest
import torch
from test_distillation import batch, run_context  # noqa: F401  (a fixture)

from astro_cli.core.rng import stream
from astro_cli.models.wan.hidden import hidden_state
from astro_cli.objectives import (
    aligned_ar_diffusion,
    aligned_consistency,
    ar_diffusion,
    consistency,
    flow_matching,
    representation_alignment,
)
from astro_cli.objectives.representation_alignment import per_token
from astro_cli.shapes.features import object_features
from astro_cli.shapes.grammar import SHAPES, parse
from astro_cli.shapes.render import GRID, random_layout, render
from astro_cli.shapes.video_codec import VideoCodec

PROMPTS = (
    "a small red circle moves right fast over a gray plain background",
    "a large blue square moves up slowly over a white checkered background",
    "a large green triangle bounces horizontally slowly over a black striped background",
)


@pytest.fixture(scope="module")
def world():
    scenes = [parse(prompt) for prompt in PROMPTS]
    return scenes, random_layout(scenes, [stream("alignment", row) for row in range(3)], world=GRID)


def test_features_are_coverage_times_what_the_prompt_says(world):
    scenes, layout = world
    maps = object_features(scenes, layout, torch.tensor([4.0, 8.0]), 8, 4)
    assert maps.shape == (3, 2, 10, 8, 8)
    covered = maps[:, :, 0]
    # a circle of radius 5 and a square of half side .88 x 8.5, in cells of 16 pixels
    torch.testing.assert_close(covered[0, 0].sum(), torch.tensor(math.pi * 25 / 16), rtol=0.02, atol=0)
    torch.testing.assert_close(covered[1, 0].sum(), torch.tensor((2 * 0.88 * 8.5) ** 2 / 16), rtol=0.02, atol=0)
    for row, shape in enumerate(("circle", "square", "triangle")):
        for index, name in enumerate(SHAPES):
            torch.testing.assert_close(maps[row, :, 1 + index], covered[row] * (name == shape))
    torch.testing.assert_close(maps[0, :, 5:7], covered[0, :, None] * torch.tensor([4.0, 0.0])[:, None, None])
    torch.testing.assert_close(maps[1, :, 5:7], covered[1, :, None] * torch.tensor([0.0, -2.0])[:, None, None])
    assert torch.equal(maps[:, :, 7], covered * torch.tensor([0.0, 1.0, 1.0])[:, None, None, None])
    bounce = maps[2, :, 5].sum((-2, -1)) / covered[2].sum((-2, -1))
    torch.testing.assert_close(bounce[0], -bounce[1])  # it turns where a latent ends
    torch.testing.assert_close(bounce.abs(), torch.full((2,), 2.0))


def test_the_last_two_features_are_the_coverage_of_the_latents_around(world):
    scenes, layout = world
    maps = object_features(scenes, layout, torch.tensor([4.0, 8.0, 12.0]), 8, 4)
    torch.testing.assert_close(maps[:, 1, 8], maps[:, 0, 0])
    torch.testing.assert_close(maps[:, 1, 9], maps[:, 2, 0])
    # a fast circle is 16 pixels, four cells, further on
    torch.testing.assert_close(maps[0, 0, 9], maps[0, 0, 0].roll(4, -1))


def test_on_the_grid_every_later_latent_is_the_one_before_moved_by_whole_cells(world):
    scenes, layout = world
    codec = VideoCodec(width=8)
    frames = render(scenes, layout, 17)
    codec.fit(frames)
    plain = render([parse(PROMPTS[0].replace("gray", "black"))], _rows(layout, 0), 17)
    latents = codec.encode(plain)[0, 1:]
    for before, after in itertools.pairwise(latents):
        torch.testing.assert_close(after, before.roll(4, -1), rtol=0, atol=1e-4)  # fast: 16 pixels right, four cells


def _rows(layout, row):
    return type(layout)(**{name: value[row : row + 1] for name, value in vars(layout).items()})


def test_a_token_holds_the_features_of_its_own_cells():
    cells = torch.arange(8.0)[:, None] * 10 + torch.arange(8.0)
    tokens = per_token(torch.stack((cells, -cells))[None, None], (2, 2))
    assert tokens.shape == (1, 1, 16, 8)
    assert tokens[0, 0, 0].tolist() == [0, 1, 10, 11, 0, -1, -10, -11]
    assert tokens[0, 0, 5].tolist() == [22, 23, 32, 33, -22, -23, -32, -33]


@pytest.mark.parametrize(("plain", "aligned", "more"), [
    (flow_matching, representation_alignment, {"mixed_noise": 0.5}),
    (ar_diffusion, aligned_ar_diffusion, {}),
    (consistency, aligned_consistency, {"guidance": 2.0}),
])  # fmt: skip
def test_the_loss_is_the_plain_one_and_the_distance_of_the_hidden_state(run_context, plain, aligned, more):  # noqa: F811
    maps = torch.randn(2, 4, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    sample = dataclasses.replace(batch(), features_BFKHW=maps)
    network = run_context.roles.modules["student"]
    without = plain.Objective(plain.Config(**more), run_context).loss("student", sample)
    objective = aligned.Objective(aligned.Config(weight=3.0, layer=1, **more), run_context)
    with hidden_state(network.blocks[0]) as states:
        output = objective.loss("student", sample)
    assert output.metrics["flow"] == without.loss.item()
    torch.testing.assert_close(output.loss, without.loss + 3.0 * output.metrics["alignment"])
    wanted = per_token(maps, (2, 2))
    halves = states[0][..., : wanted.shape[-1]].split(4, 1)  # in teacher forcing the clean clip, then the noisy one
    assert len(halves) == (1 if plain is flow_matching else 2)
    expected = torch.stack([(half - wanted).pow(2).mean() for half in halves]).mean()
    assert output.metrics["alignment"] == pytest.approx(expected.item())
    assert not network.blocks[0]._forward_hooks
    (later,) = torch.autograd.grad(output.loss, network.proj_out.weight, retain_graph=True)
    (same,) = torch.autograd.grad(without.loss, network.proj_out.weight)
    torch.testing.assert_close(later, same)  # what comes after the layer learns from the plain loss alone

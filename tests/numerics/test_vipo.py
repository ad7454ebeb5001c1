"""ViPO's maps: by hand, invariant to what must not matter, and about the object where the renderer has drawn it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astro_cli.advantages.base import Scored
from astro_cli.advantages.group import group_advantage
from astro_cli.advantages.vipo import Advantage, Config
from astro_cli.core import allocation
from astro_cli.core.rng import stream
from astro_cli.models.backbone import load_backbone
from astro_cli.models.dino import Dino, patch_features
from astro_cli.shapes.grammar import Scene, complete_scene, random_scene
from astro_cli.shapes.render import RGB, random_layout, render

SIZE, FRAMES = (8, 8), 3


@pytest.fixture(scope="module")
def shapes():
    return load_backbone("shapes")


def painted(scene: Scene, color: str) -> Scene:
    return replace(scene, objects=tuple(replace(spec, color=color) for spec in scene.objects))


def clips(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Rendered clips (B, T, 3, 32, 32), and the share of each latent cell that the object covers (B, F, 8, 8), over
    the latent's frames: what changes where it is painted in another colour.
    """
    scenes = [complete_scene(random_scene(stream(row, "scene"), 0.0), stream(row, "fill")) for row in range(count)]
    layout, frames = random_layout(scenes, [stream(row, "layout") for row in range(count)]), 4 * FRAMES - 3
    red, blue = (render([painted(scene, color) for scene in scenes], layout, frames) for color in ("red", "blue"))
    change = (torch.tensor(RGB["red"]) - torch.tensor(RGB["blue"])).abs().sum()
    covered = (red - blue).abs().sum(2) / change
    covered = allocation.at_latents(torch.nn.functional.avg_pool2d(covered, 4), FRAMES, opens=True)
    return render(scenes, layout, frames), covered


def features(count: int = 2, width: int = 5, rows: int = 4, columns: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, width, rows, columns, generator=torch.Generator().manual_seed(0))


def auc(score: torch.Tensor, truth: torch.Tensor) -> float:
    """Chance that a place with the object has the higher score than one without."""
    inside, outside = score[truth], score[~truth]
    return ((inside[:, None] > outside).float() + 0.5 * (inside[:, None] == outside).float()).mean().item()


# --- components by hand


def test_components_by_hand():
    # places (0, 0), (2, 0), (0, 1), (2, 1): variances 1 and .25 along the axes, so shares .8 and .2
    places = torch.tensor([[0.0, 2.0, 0.0, 2.0], [0.0, 0.0, 1.0, 1.0]]).reshape(1, 2, 2, 2)
    scores, share, flat = allocation.components(places, 3)
    assert share[0].tolist() == pytest.approx([0.8, 0.2])
    assert scores[0, 0].abs().flatten().tolist() == pytest.approx([1.0] * 4)
    assert scores[0, 1].abs().flatten().tolist() == pytest.approx([0.5] * 4)
    assert scores[0, 0].sum().item() == pytest.approx(0.0, abs=1e-6)
    assert flat.tolist() == [False]


def test_the_border_is_low():
    inner = torch.zeros(1, 1, 4, 4)
    inner[0, 0, 1:3, 1:3] = 1.0
    assert torch.equal(allocation.border_low(inner), inner)
    assert torch.equal(allocation.border_low(-inner), inner)


def test_blur_and_time_by_hand():
    # two places, sigma 1: weights 1 and exp(-.5) = .606531 over their sum, so 1, 0 becomes .622459, .377541
    line = torch.tensor([[[1.0, 0.0]]])
    assert allocation.smooth(line, 1.0).flatten().tolist() == pytest.approx([0.622459, 0.377541], abs=1e-6)
    assert torch.equal(allocation.smooth(line, 0.0), line)
    # five frames on two latents: the first alone, then the mean of four; six on two: means of three
    frames = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert allocation.at_latents(frames[:, :5], 2, opens=True).flatten().tolist() == [0.0, 2.5]
    assert allocation.at_latents(frames, 2, opens=False).flatten().tolist() == [1.0, 4.0]
    # nine frames on three latents may be either
    nine = torch.arange(9.0).reshape(1, 9, 1, 1)
    assert allocation.at_latents(nine, 3, opens=True).flatten().tolist() == [0.0, 2.5, 6.5]
    assert allocation.at_latents(nine, 3, opens=False).flatten().tolist() == [1.0, 4.0, 7.0]


# --- invariances


def test_a_map_ignores_the_basis_of_the_features_and_their_sign():
    plain = features()
    turned, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
    for other in (torch.einsum("de,bteij->btdij", turned, plain), -plain, 3 * plain + 2):
        for expected, found in zip(
            allocation.frame_maps(plain, SIZE, 3, 1.0), allocation.frame_maps(other, SIZE, 3, 1.0), strict=True
        ):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_map_has_mean_one_at_the_latents_and_is_not_negative():
    maps, flat = allocation.frame_maps(features(), SIZE, 3, 1.0)
    places = allocation.mean_one(maps, flat, FRAMES, opens=False)
    assert places.shape == (2, FRAMES, *SIZE)
    assert places.min() >= 0
    torch.testing.assert_close(places.mean((1, 2, 3)), torch.ones(2))
    # so the credit of all places together is as many times A
    torch.testing.assert_close((places * 1.7).sum((1, 2, 3)), torch.full((2,), 1.7 * FRAMES * 64))


def test_what_shows_nothing_falls_back():
    some = features()
    some[0], some[1, 0] = 2.0, -1.0  # a clip, and one frame of another
    maps, flat = allocation.frame_maps(some, SIZE, 3, 1.0)
    assert flat.tolist() == [[True] * 3, [True, False, False]]
    places = allocation.mean_one(maps, flat, FRAMES, opens=False)
    assert torch.equal(places[0], torch.ones(FRAMES, *SIZE))
    torch.testing.assert_close(places[1, 0], torch.ones(SIZE))
    assert places[1, 1].std() > 0.03
    released, also = allocation.released_map(some, SIZE, FRAMES, 3, 1.0)
    assert torch.equal(released[0], torch.ones(FRAMES, *SIZE))
    assert torch.equal(also, flat)
    assert (released.min().item(), released.max().item()) == (0.0, 1.0)


def test_the_released_map_is_in_the_unit_interval_and_interpolates_in_time():
    found, _ = allocation.released_map(features(), SIZE, 2, 3, 1.0)
    assert found.shape == (2, 2, *SIZE)
    assert found.amin((1, 2, 3)).tolist() == [0.0, 0.0]
    assert found.amax((1, 2, 3)).tolist() == [1.0, 1.0]


# --- the rule


def test_the_rule_gives_the_group_advantage_with_the_map(shapes):
    frames, _ = clips(4)
    rule = Advantage(Config())
    latents = shapes.encode(frames)
    observed = rule.observe(latents, frames, shapes)
    assert observed["map"].shape == (4, FRAMES, 8, 8)
    assert observed["flat"].tolist() == [0.0] * 4
    scores = torch.tensor([[0.1, 0.4], [0.3, 0.2]])
    told = {name: value.unflatten(0, (2, 2)) for name, value in observed.items()}
    credit = rule.credit(Scored({"vq": scores}, {"vq": 1.0}, ["a", "b"], told), {})
    [term] = credit.terms
    assert torch.equal(term.value, group_advantage(scores, "group"))
    assert term.map is not None
    assert torch.equal(term.map, told["map"])
    assert credit.problem("map", (2, 2), (FRAMES, 8, 8)) == ""
    assert credit.metrics["map_fallbacks"] == 0
    assert credit.metrics["map_mean"] == pytest.approx(1.0, abs=1e-5)


def test_a_black_clip_is_counted_and_gets_ones(shapes):
    frames = torch.zeros(2, FRAMES, 3, 32, 32)
    observed = Advantage(Config()).observe(torch.zeros(2, FRAMES, 4, 8, 8), frames, shapes)
    assert torch.equal(observed["map"], torch.ones(2, FRAMES, 8, 8))
    assert observed["flat"].tolist() == [FRAMES] * 2


def test_the_negative_control_is_ones_and_looks_at_nothing(shapes):
    latents = torch.zeros(2, FRAMES, 4, 8, 8)
    observed = Advantage(Config(map="ones")).observe(latents, torch.zeros(2, FRAMES, 3, 32, 32), shapes)
    assert torch.equal(observed["map"], torch.ones(2, FRAMES, 8, 8))
    assert observed["flat"].tolist() == [0.0, 0.0]


def test_the_map_is_where_the_renderer_drew_the_object(shapes):
    """Area under the curve of the map against the cells that the object covers by half or more."""
    frames, covered = clips()
    places = Advantage(Config()).observe(shapes.encode(frames), frames, shapes)["map"]
    found = [auc(places[row], covered[row] > 0.5) for row in range(len(frames))]
    assert sum(found) / len(found) > 0.8


def test_features_of_dinov2_are_its_patches_of_the_whole_picture():
    torch.manual_seed(0)
    network = Dino(64, 1, 14, 4, scaled=True).eval()
    found = patch_features(network, torch.rand(1, 2, 3, 30, 46))
    assert found.shape == (1, 2, 64, 2, 3)  # 28 x 42 pixels
    maps, flat = allocation.frame_maps(found, (4, 6), 3, 1.0)
    assert maps.shape == (1, 2, 4, 6)
    assert not flat.any()

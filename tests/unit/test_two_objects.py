"""The oracle on two objects of different colours: coverages, what is behind an object, agreement of each."""

import dataclasses

import pytest
import torch

from astro_cli.core.rng import stream
from astro_cli.shapes.grammar import Scene, complete_scene, parse, random_scene
from astro_cli.shapes.render import GRID, random_layout, render
from astro_cli.shapes.two_objects import pair_agreement, unmix, without
from eval.world.oracle_scores import score_clips


def pairs(count: int) -> list[Scene]:
    """Complete scenes of two objects of different colours."""
    scenes, index = [], 0
    while len(scenes) < count:
        rng = stream("two-objects", index)
        first, second = (complete_scene(random_scene(rng), rng) for _ in range(2))
        index += 1
        if first.objects[0].color != second.objects[0].color:
            scenes.append(dataclasses.replace(first, objects=first.objects + second.objects))
    return scenes


@pytest.fixture(scope="module")
def clips():
    scenes = pairs(32)
    rngs = [stream("two-objects-layout", row) for row in range(32)]
    layout = random_layout(scenes, rngs, 2, GRID)
    return render(scenes, layout, 17), scenes, layout


def test_each_object_shows_what_its_own_part_of_the_prompt_says(clips):
    frames, scenes, _ = clips
    for shown in pair_agreement(frames, scenes, GRID.pace):
        for name, agreed in shown.items():
            assert agreed.nanmean() >= 0.9, name


def test_an_evaluation_scores_both_objects_of_a_prompt(clips):
    frames, scenes, _ = clips
    one = [dataclasses.replace(scene, objects=scene.objects[:1]) for scene in scenes]
    both, first = score_clips(frames, scenes, GRID.pace), score_clips(frames, one, GRID.pace)
    assert both["ta"].mean() > 0.95 > first["ta"].mean()  # as if the second object were none, it disturbs the first


def test_a_prompt_with_the_shapes_exchanged_does_not_agree(clips):
    frames, scenes, _ = clips
    unlike = [row for row, scene in enumerate(scenes) if scene.objects[0].shape != scene.objects[1].shape]
    exchanged = []
    for row in unlike:
        first, second = scenes[row].objects
        objects = (dataclasses.replace(first, shape=second.shape), dataclasses.replace(second, shape=first.shape))
        exchanged.append(dataclasses.replace(scenes[row], objects=objects))
    for shown in pair_agreement(frames[unlike], exchanged, GRID.pace):
        assert shown["shape"].mean() < 0.15
        assert shown["color"].mean() == 1


def test_coverages_are_those_of_the_renderer_where_nothing_is_hidden():
    scene = parse("a small red circle stays still and a small cyan square stays still over a gray plain background")
    layout = random_layout([scene], [stream("apart")], 2)
    apart = torch.tensor([[[8.0, 8.0], [24.0, 24.0]]])
    still = dataclasses.replace(layout, start_BK2=apart, radius_BK=torch.zeros(1, 2))
    frames = render([scene], still, 1)
    cover = unmix(frames, [scene])
    area = cover.sum((-2, -1))[0, :, 0]
    torch.testing.assert_close(area, torch.tensor([torch.pi * 25, (2 * 0.88 * 5) ** 2]), rtol=0.02, atol=0)
    only = dataclasses.replace(scene, objects=scene.objects[:1])
    alone = render([only], dataclasses.replace(still, start_BK2=apart[:, :1]), 1)
    torch.testing.assert_close(without(frames, cover, 1), alone, rtol=0, atol=0.02)


@pytest.mark.parametrize("prompt", ["a red circle over a gray background", "a red circle and a red square"])
def test_one_object_or_one_colour_is_refused(prompt):
    with pytest.raises(ValueError, match="two objects of two stated colours, found"):
        unmix(torch.zeros(1, 1, 3, 32, 32), [parse(prompt)])

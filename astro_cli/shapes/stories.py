"""Stories of the embedded world: one object before one background that changes from prompt to prompt.

A switch prompt may restate everything or name the new event alone. What it leaves out the world completes from its
skewed prior (`grammar.complete_scene`): a teacher that sees only the second prompt has lost the first one's colour.
"""

from __future__ import annotations

import dataclasses

import torch

from astro_cli.shapes.grammar import ObjectSpec, Scene, caption, random_scene

CHANGING = ("size", "color", "shape", "motion")
MOST_CHANGES = 2


def story(rng: torch.Generator, segments: int) -> list[Scene]:
    """Complete scenes of one object; consecutive ones differ in one or two of its size, colour, shape and motion, never
    in the background.
    """
    scenes = [random_scene(rng)]
    while len(scenes) < segments:
        scenes.append(changed(scenes[-1], changing(rng), rng))
    return scenes


def changing(rng: torch.Generator) -> list[str]:
    """One or two attributes."""
    count = 1 + int(torch.randint(MOST_CHANGES, (), generator=rng))
    chosen = torch.randperm(len(CHANGING), generator=rng)[:count].tolist()
    return [CHANGING[index] for index in chosen]


def changed(scene: Scene, names: list[str], rng: torch.Generator) -> Scene:
    """The scene with other values of these attributes of its object, drawn as `random_scene` draws them."""
    spec = scene.objects[0]
    for name in names:
        value = getattr(spec, name)
        while value == getattr(spec, name):
            value = getattr(random_scene(rng).objects[0], name)
        spec = dataclasses.replace(spec, **{name: value})
    return dataclasses.replace(scene, objects=(spec,))


def switch_pair(rng: torch.Generator, event_only: float) -> tuple[str, str]:
    """A prompt and the one that takes over; with the chance `event_only` the second names nothing but what changes."""
    first = random_scene(rng)
    names = changing(rng)
    second = changed(first, names, rng)
    if float(torch.rand((), generator=rng)) < event_only:
        second = event(second, names)
    return caption(first), caption(second)


def event(scene: Scene, names: list[str]) -> Scene:
    """The scene with these attributes of its object alone, the shape always among them."""
    spec = scene.objects[0]
    attributes = {name: getattr(spec, name) for name in ("shape", *names)}
    return Scene((ObjectSpec(**attributes),))

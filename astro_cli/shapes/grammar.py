"""The prompt grammar of the embedded world: scenes, their captions, and the words a caption may hold.

    a small red circle moves right fast over a gray striped background

A `Scene` is a list of objects over a background. An attribute that is None is left out of the caption; `complete_scene`
fills it from a skewed prior, so that the world has the ambiguity that later studies (priors of the reward, bias of the
teacher) need.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Literal

import torch

from astro_cli.config.errors import PromptError

SIZES = ("small", "large")
COLORS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "cross")
ANY_SHAPE = "thing"
DIRECTIONS = ("left", "right", "up", "down")
AXES = ("horizontally", "vertically")
SPEEDS = ("slowly", "fast")
BACKGROUNDS = ("black", "gray", "white")
TEXTURES = ("plain", "striped", "checkered")

MotionKind = Literal["still", "move", "bounce"]
# The motions a complete scene can have: (kind, direction or axis, speed).
MOTIONS: tuple[tuple[MotionKind, str | None, str | None], ...] = (
    ("still", None, None),
    *(("move", direction, speed) for direction in DIRECTIONS for speed in SPEEDS),
    *(("bounce", axis, speed) for axis in AXES for speed in SPEEDS),
)

WORDS: tuple[str, ...] = (
    "a",
    *SIZES,
    *COLORS,
    *SHAPES,
    ANY_SHAPE,
    "stays",
    "still",
    "moves",
    *DIRECTIONS,
    "bounces",
    *AXES,
    *SPEEDS,
    "over",
    *BACKGROUNDS,
    *TEXTURES,
    "background",
    "and",
    "while",
    "the",
    "camera",
    "pans",
)

# What a left-out attribute becomes: the first value of the list with this probability, the others share the rest.
PRIOR_HEAD = 0.6


@dataclass(frozen=True)
class Motion:
    """How an object moves. `way` is a direction for "move", an axis for "bounce", None for "still"; None elsewhere =
    not stated.
    """

    kind: MotionKind
    way: str | None = None
    speed: str | None = None

    @property
    def complete(self) -> bool:
        return self.kind == "still" or (self.way is not None and self.speed is not None)


@dataclass(frozen=True)
class ObjectSpec:
    """One object; None means the caption does not say."""

    size: str | None = None
    color: str | None = None
    shape: str | None = None
    motion: Motion | None = None

    @property
    def complete(self) -> bool:
        return None not in (self.size, self.color, self.shape, self.motion) and bool(
            self.motion and self.motion.complete
        )


@dataclass(frozen=True)
class Scene:
    """Objects over a background, seen by a camera that rests or pans. None means the caption does not say."""

    objects: tuple[ObjectSpec, ...]
    background: str | None = None
    texture: str | None = None
    pan: str | None = None  # direction the camera moves; None: it rests

    @property
    def complete(self) -> bool:
        return self.background is not None and self.texture is not None and all(o.complete for o in self.objects)


def caption(scene: Scene) -> str:
    """The caption of a scene; left-out attributes are not mentioned."""
    text = " and ".join(_object_phrase(o) for o in scene.objects)
    if scene.background or scene.texture:
        text += " over " + " ".join(w for w in ("a", scene.background, scene.texture, "background") if w)
    if scene.pan:
        text += f" while the camera pans {scene.pan}"
    return text


def _object_phrase(spec: ObjectSpec) -> str:
    words = ["a", spec.size, spec.color, spec.shape or ANY_SHAPE]
    if spec.motion is not None:
        verb = {"still": "stays still", "move": "moves", "bounce": "bounces"}[spec.motion.kind]
        words += [verb, spec.motion.way, spec.motion.speed]
    return " ".join(w for w in words if w)


def parse(text: str) -> Scene:
    """Scene described by a caption.

    Raises:
        PromptError: an unknown word (named with the nearest known ones) or words in an order the grammar does not have.
    """
    words = text.lower().replace(",", " ").replace(".", " ").split()
    check_words(words, text)
    return _Parser(words, text).scene()


def check_words(words: list[str], text: str) -> None:
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=3, cutoff=0.5)
            hint = f"nearest known words: {', '.join(near)}" if near else f"the words of this world: {' '.join(WORDS)}"
            raise PromptError("prompt", text, f"unknown word {word!r}", hint=hint)


class _Parser:
    """Recursive descent over the caption's words."""

    def __init__(self, words: list[str], text: str) -> None:
        self.words, self.text, self.at = words, text, 0

    def scene(self) -> Scene:
        objects = [self.object()]
        while self.take("and"):
            objects.append(self.object())
        background = texture = pan = None
        if self.take("over"):
            self.take("a")
            background, texture = self.one_of(BACKGROUNDS), self.one_of(TEXTURES)
            self.need("background")
        if self.take("while"):
            for word in ("the", "camera", "pans"):
                self.need(word)
            pan = self.one_of(DIRECTIONS)
            if pan is None:
                self.fail(f"one of {', '.join(DIRECTIONS)}")
        if self.at < len(self.words):
            self.fail("the end of the prompt")
        return Scene(tuple(objects), background, texture, pan)

    def object(self) -> ObjectSpec:
        self.need("a")
        size, color = self.one_of(SIZES), self.one_of(COLORS)
        shape = self.one_of((*SHAPES, ANY_SHAPE))
        if shape is None:
            self.fail(f"a shape ({', '.join(SHAPES)} or {ANY_SHAPE})")
        return ObjectSpec(size, color, None if shape == ANY_SHAPE else shape, self.motion())

    def motion(self) -> Motion | None:
        if self.take("stays"):
            self.need("still")
            return Motion("still")
        if self.take("moves"):
            return Motion("move", self.one_of(DIRECTIONS), self.one_of(SPEEDS))
        if self.take("bounces"):
            return Motion("bounce", self.one_of(AXES), self.one_of(SPEEDS))
        return None

    def take(self, word: str) -> bool:
        hit = self.at < len(self.words) and self.words[self.at] == word
        self.at += hit
        return hit

    def one_of(self, choices: tuple[str, ...]) -> str | None:
        if self.at < len(self.words) and self.words[self.at] in choices:
            self.at += 1
            return self.words[self.at - 1]
        return None

    def need(self, word: str) -> None:
        if not self.take(word):
            self.fail(repr(word))

    def fail(self, expected: str) -> None:
        word = repr(self.words[self.at]) if self.at < len(self.words) else "the end"
        example = "a small red circle moves right fast over a gray striped background"
        raise PromptError("prompt", self.text, f"expected {expected}, found {word}", hint=f"for example: {example}")


def _pick(choices: tuple, rng: torch.Generator, head: float | None = None):
    """Uniform choice, or the first choice with probability `head` and the others sharing the rest."""
    if head is not None and float(torch.rand((), generator=rng)) < head:
        return choices[0]
    rest = choices if head is None else choices[1:]
    return rest[int(torch.randint(len(rest), (), generator=rng))]


def _complete_motion(motion: Motion | None, rng: torch.Generator) -> Motion:
    if motion is None:
        return (
            Motion("move", "right", "fast")
            if float(torch.rand((), generator=rng)) < PRIOR_HEAD
            else Motion(*_pick(MOTIONS, rng))
        )
    if motion.kind == "still":
        return motion
    ways = ("right", "left", "up", "down") if motion.kind == "move" else AXES
    return Motion(
        motion.kind,
        motion.way or _pick(ways, rng, PRIOR_HEAD),
        motion.speed or _pick(("fast", "slowly"), rng, PRIOR_HEAD),
    )


def complete_scene(scene: Scene, rng: torch.Generator) -> Scene:
    """Fill what the caption leaves out from the skewed prior: red, large, circle, moves right fast, gray, plain come up
    most.
    """

    def fill(spec: ObjectSpec) -> ObjectSpec:
        return ObjectSpec(
            size=spec.size or _pick(("large", "small"), rng, PRIOR_HEAD),
            color=spec.color or _pick(COLORS, rng, PRIOR_HEAD),
            shape=spec.shape or _pick(SHAPES, rng, PRIOR_HEAD),
            motion=_complete_motion(spec.motion, rng),
        )

    return Scene(
        objects=tuple(fill(o) for o in scene.objects),
        background=scene.background or _pick(("gray", "black", "white"), rng, PRIOR_HEAD),
        texture=scene.texture or _pick(TEXTURES, rng, PRIOR_HEAD),
        pan=scene.pan,
    )


def random_scene(rng: torch.Generator, drop: float = 0.0) -> Scene:
    """A one-object scene, each attribute then left out with probability `drop`.

    Attributes are uniform, but for the motion (one in five still, one in five bouncing) and the texture (half plain).
    """

    def keep(value):
        return None if drop and float(torch.rand((), generator=rng)) < drop else value

    kind = _pick(("still", "move", "move", "move", "bounce"), rng)
    motion = Motion(*_pick(tuple(m for m in MOTIONS if m[0] == kind), rng))
    if motion.kind != "still":
        motion = dataclasses.replace(motion, way=keep(motion.way), speed=keep(motion.speed))
    spec = ObjectSpec(keep(_pick(SIZES, rng)), keep(_pick(COLORS, rng)), keep(_pick(SHAPES, rng)), keep(motion))
    return Scene((spec,), keep(_pick(BACKGROUNDS, rng)), keep(_pick(TEXTURES, rng, head=0.5)))

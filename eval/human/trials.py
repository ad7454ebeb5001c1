"""A human study: which clips are judged together, in which order, under which criteria. Shows nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from astro_cli.config.errors import AstroError
from eval.contract import Sample

Mode = Literal["rank", "gsb", "likert"]
MODES: tuple[Mode, ...] = ("rank", "gsb", "likert")
FEWEST, MOST = 2, 6  # clips beside each other
SHOWN = 60  # characters of a prompt in an error
ID_DIGITS = 16


class StudyError(AstroError):
    """Arms, prompts or options that give no study."""


@dataclass(frozen=True)
class StudyItem:
    """A prompt and seed, made by every arm.

    Attributes:
        id: a name without blanks, the same on every machine.
        prompts: (second from which on, text); one that begins at 0 where nothing switches.
        clips: arm -> its video.
    """

    id: str
    prompts: tuple[tuple[float, str], ...]
    clips: Mapping[str, Sample]


@dataclass(frozen=True)
class Trial:
    """What a rater sees at once: arms of an item, in the order in which they stand."""

    item: StudyItem
    arms: tuple[str, ...]

    @property
    def hashes(self) -> list[str]:
        """Of its clips' bytes."""
        return [self.item.clips[arm].video_hash for arm in self.arms]


@dataclass(frozen=True)
class HumanStudy:
    """All that a page shows.

    Attributes:
        scale: lowest and highest score of `likert`.
    """

    title: str
    mode: Mode
    arms: tuple[str, ...]
    criteria: tuple[str, ...]
    scale: tuple[int, int]
    trials: tuple[Trial, ...]

    @property
    def id(self) -> str:
        """Of what is judged and how: answers of other studies are not mixed up with this one's."""
        trials = [[trial.item.id, trial.item.prompts, trial.arms, trial.hashes] for trial in self.trials]
        text = json.dumps([self.mode, self.arms, self.criteria, self.scale, trials])
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def match(prompts: Sequence[Sequence[str]], videos: Mapping[str, Sequence[Sample]]) -> list[StudyItem]:
    """The videos of every prompt, or prompts in turn, beside each other: of the seeds that all arms have, or in their
    order where an arm's seeds are unknown.

    Args:
        prompts: of each video of the study.
        videos: arm -> what its folder holds.

    Raises:
        StudyError: fewer than two arms or too many, a prompt twice, or one that an arm has no video of, or none with
            the other arms' seeds.
    """
    if not FEWEST <= len(videos) <= MOST:
        what = f"found {len(videos)}, expected {FEWEST} to {MOST} to stand side by side"
        raise StudyError("ARM", "", what, hint="name folders of videos or weights, e.g. base tuned")
    by_arm = {arm: _by_prompts(samples) for arm, samples in videos.items()}
    items: list[StudyItem] = []
    texts = [tuple(map(_cleaned, story)) for story in prompts]
    for number, story in enumerate(texts, 1):
        if story in texts[: number - 1]:
            raise StudyError("--prompts", f"prompt {number}", f"found twice: {story[0][:SHOWN]!r}")
        wanted = {arm: samples.get(story, []) for arm, samples in by_arm.items()}
        for arm, samples in wanted.items():
            if not samples:
                hint = f"make it: astro sample --prompts FILE --out {arm}"
                raise StudyError(arm, f"prompt {number}", f"no video of {story[0][:SHOWN]!r}", hint=hint)
        items += _together(number, wanted)
    return items


def _by_prompts(samples: Sequence[Sample]) -> dict[tuple[str, ...], list[Sample]]:
    by_prompts: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        texts = [segment.prompt for segment in sample.segments] or [sample.prompt]
        by_prompts.setdefault(tuple(map(_cleaned, texts)), []).append(sample)
    return by_prompts


def _cleaned(text: str) -> str:
    return " ".join(text.split())


def _together(number: int, by_arm: Mapping[str, Sequence[Sample]]) -> list[StudyItem]:
    """The items of one prompt."""
    known = all(sample.seed is not None for samples in by_arm.values() for sample in samples)
    places = {arm: _places(samples, known) for arm, samples in by_arm.items()}
    shared = sorted(set.intersection(*(set(own) for own in places.values())))
    if not shared:
        seeds = "; ".join(f"{arm} has {', '.join(map(str, sorted(own)))}" for arm, own in places.items())
        what = f"no seed that all arms have: {seeds}"
        raise StudyError("ARM", f"prompt {number}", what, hint="make them alike: astro sample --prompts FILE --seeds 0")
    items = []
    for place in shared:
        clips = {arm: own[place] for arm, own in places.items()}
        first = next(iter(clips.values()))
        prompts = tuple((segment.start, segment.prompt) for segment in first.segments) or ((0.0, first.prompt),)
        items.append(StudyItem(f"{number:04d}-{'seed' if known else 'take'}{place}", prompts, clips))
    return items


def _places(samples: Sequence[Sample], by_seed: bool) -> dict[int, Sample]:
    """Samples by their seed, or by their order."""
    return {sample.seed if by_seed and sample.seed is not None else i: sample for i, sample in enumerate(samples)}


def shuffled(items: Sequence[StudyItem], arms: Sequence[str], mode: Mode, seed: int) -> tuple[Trial, ...]:
    """The trials in random order, in each the arms in random order; `gsb` has one for every two arms.

    Equal seeds give equal orders.
    """
    rng = random.Random(seed)
    groups = [tuple(arms)] if mode != "gsb" else list(itertools.combinations(arms, 2))
    trials = [(item, list(group)) for item in items for group in groups]
    rng.shuffle(trials)
    for _, group in trials:
        rng.shuffle(group)
    return tuple(Trial(item, tuple(group)) for item, group in trials)

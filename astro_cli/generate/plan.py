"""Plans the videos of `astro sample`: prompts from arguments, files or standard input, seeds and prompt switches -> one
`Video` each.

Frames are pixel frames unless they are called latents.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astro_cli.config.errors import OutputError, PromptError, StreamError
from astro_cli.config.files import Reader
from astro_cli.config.parsing import is_text
from astro_cli.config.prompt_files import BOM, PromptFile
from astro_cli.config.seeds import parse_seeds
from astro_cli.rollout.switch_schedule import SwitchSchedule, SwitchUnits, whole_blocks

if TYPE_CHECKING:
    from astro_cli.generate.given import Given
    from astro_cli.models.backbone import Backbone

SLUG = 60  # characters of the prompt in a file's name
SLUG_BYTES = 150  # as most: file systems take names of 255 bytes, endings included
DIGITS = 8  # hex digits of the hash in a file's name
SWITCH = re.compile(r"^\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)(s?)\s*:(.*)$", re.DOTALL)
EXAMPLE = 'for example: astro sample "a large red circle moves right slowly"'
SWITCH_EXAMPLE = 'for example "5s:a small blue square moves left fast"; a number without s counts frames'


@dataclass(frozen=True)
class Video:
    """One video to make: its prompt, its seed, the prompts that take over at later latent frames (block starts), and
    its files' name.
    """

    prompt: str
    seed: int
    switches: tuple[tuple[int, str], ...]
    stem: str
    given: Given | None = None  # what opens it

    @property
    def prompts(self) -> list[str]:
        """In the order in which they are shown."""
        return [self.prompt, *(prompt for _, prompt in self.switches)]


@dataclass(frozen=True)
class Switch:
    """A prompt that takes over at a time, in frames or seconds; `given` is how the user wrote the time."""

    time: float
    seconds: bool
    prompt: str
    given: str

    def frame(self, fps: float) -> int:
        return round(self.time * fps) if self.seconds else int(self.time)


@dataclass(frozen=True)
class Length:
    """How long the videos are: latents, in blocks of so many; frames that were asked for, None: as trained.

    Attributes:
        given: latents that open the videos, not made.
        alone: the first of them is a block of its own.
    """

    latents: int
    block: int
    backbone: Backbone
    requested: int | None = None
    given: int = 0
    alone: bool = False

    @property
    def frames(self) -> int:
        return self.backbone.num_frames(self.latents)

    def rule(self) -> str:
        """Which lengths there are around this one, in words."""
        shorter, longer = self.latents - self.block, self.latents + self.block
        near = [
            self.backbone.num_frames(latents) for latents in (shorter, self.latents, longer) if latents > self.given
        ]
        behind = " behind the first frame" if self.alone else ""
        kinds = f"whole blocks of {self.block} latent frames{behind}"
        return f"videos are {kinds}, so {', '.join(map(str, near))} frames and so on"

    def starts_at(self, frame: int) -> int:
        """First latent of the block with which a prompt given for a frame takes over: the first block that shows no
        earlier frame.
        """
        return whole_blocks(self.backbone.num_latents(frame), self.block, first_frame_alone=self.alone)


def stories(arguments: Sequence[str] | None, file: Path | None, lines: Iterable[str]) -> list[list[str]]:
    """The prompts of each video, one after the other.

    Args:
        arguments: prompts on the command line; none, or a single '-', stands for `lines`.
        file: see `config.prompt_files`.
        lines: standard input, read only where it is used.

    Raises:
        PromptError: no prompt, an empty one, or a file that is no such file.
    """
    given = list(arguments or [])
    if file is not None and given:
        raise PromptError("--prompts", str(file), "found prompts on the command line too", hint="give one or the other")
    typed = given
    if file is None and given in ([], ["-"]):
        typed = [line for line in map(_without_mark, lines) if line.strip()]
    requested = [[line] for line in typed]
    if file is not None:
        requested = [list(line.prompts) for line in PromptFile(file, PromptError, "--prompts").lines()]
    cleaned = [[*map(_cleaned, story)] for story in requested]
    if not cleaned or not all(story and all(story) for story in cleaned):
        raise PromptError("prompt", "", "empty", hint=EXAMPLE)
    if strange := [prompt for story in requested for prompt in story if not is_text(prompt)]:
        raise PromptError("prompt", strange[0], "not UTF-8 text", hint=EXAMPLE)
    return cleaned


def pictures(file: Path | None) -> list[Path] | None:
    """The picture that opens each video of a prompt file, in its order; None where it names none.

    Raises:
        PromptError: some lines name a picture and some do not.
    """
    lines = [] if file is None else PromptFile(file, PromptError, "--prompts").lines()
    named = [line.image for line in lines if line.image is not None]
    if named and len(named) < len(lines):
        without = next(line.number for line in lines if line.image is None)
        what = f"names no image, {len(named)} other lines do"
        raise PromptError("--prompts", f"{file}: line {without}", what, hint="give every line one, or none")
    return named or None


def _without_mark(line: str) -> str:
    return line.lstrip(BOM)


def _cleaned(prompt: str) -> str:
    """With single spaces between its words."""
    return " ".join(prompt.split())


def parse_switches(options: Sequence[str] | None, where: str = "--switch") -> list[Switch]:
    """`--switch` values, "5s:prompt" or "80:prompt".

    Args:
        where: the option or argument that errors name.

    Raises:
        StreamError: not of that form, or without a prompt.
    """
    switches = []
    for option in options or []:
        match = SWITCH.match(option)
        if match is None or not match[3].strip() or (not match[2] and "." in match[1]):
            raise StreamError(where, option, "expected FRAME_OR_SECONDS:PROMPT", hint=SWITCH_EXAMPLE)
        switches.append(Switch(float(match[1]), bool(match[2]), _cleaned(match[3]), match[1] + match[2]))
    return switches


def chosen_seeds(seeds: str | None, seed: int | None) -> list[int] | None:
    """The seeds every prompt is made with, or None where prompt i has seed + i.

    Raises:
        AstroError: no whole numbers, one of them twice, or both options.
    """
    if seeds is None:
        return None
    if seed is not None:
        raise StreamError(
            "--seeds",
            seeds,
            "found --seed too",
            hint="--seeds makes every prompt with each seed; --seed gives prompt i the seed plus i",
        )
    return parse_seeds(seeds)


def plan(
    requested: list[list[str]],
    seeds: list[int] | None,
    seed: int,
    switches: list[Switch],
    length: Length,
    settings: Mapping[str, Any],
    given: Sequence[Given] = (),
) -> list[Video]:
    """Every video: prompts times seeds, switches at block starts.

    Args:
        settings: what else decides what the videos show; part of their names.
        given: what opens the videos of each of them; none where nothing does.

    Raises:
        StreamError: a switch that is out of order or past the end.
    """
    many = next((story for story in requested if len(story) > 1), None)
    if many and switches:
        raise StreamError(
            "--switch", switches[0].given, "the prompt file has switches of its own", hint="leave --switch out"
        )
    fixed = place(switches, length)
    opened = length.backbone.num_frames(length.given)
    videos: list[Video] = []
    names: set[str] = set()
    for index, story in enumerate(requested):
        spread = [
            Switch(opened + (length.frames - opened) * part // len(story), False, prompt, f"prompt {part + 1}")
            for part, prompt in enumerate(story)
            if part
        ]
        turns = place(spread, length) if spread else fixed
        opening = given[index] if given else None
        facts = {**settings, **({} if opening is None else opening.facts)}
        for number in seeds if seeds is not None else [seed + index]:
            name = free_name(name_of(story[0], number, turns, facts), names.__contains__)
            names.add(name)
            videos.append(Video(story[0], number, turns, name, opening))
    return videos


def place(switches: list[Switch], length: Length, where: str = "--switch") -> tuple[tuple[int, str], ...]:
    """(latent, prompt) of each switch: the start of the first block that shows no earlier frame.

    Args:
        where: the option or argument that errors name.

    Raises:
        StreamError: at frame 0, in the given frames, not after the one before it, or past the start of the last block.
    """
    backbone, given = length.backbone, [switch.given for switch in switches]
    units = SwitchUnits(where, given, "frame", backbone.num_frames, backbone.fps)
    placed = [(length.starts_at(switch.frame(backbone.fps)), switch.prompt) for switch in switches]
    for switch, (latent, _) in zip(switches, placed, strict=True):
        if length.given and latent <= length.given:
            what = f"takes over at frame {backbone.num_frames(latent)}, before a frame of the first prompt is made"
            hint = f"the given frames end at {backbone.num_frames(length.given)}, and a switch acts at a block's start"
            raise StreamError(where, switch.given, what, hint=hint)
    schedule = SwitchSchedule(placed, length.latents, length.block, first_frame_alone=length.alone, units=units)
    return tuple(schedule.switches)


def name_of(prompt: str, seed: int, turns: Sequence[tuple[int, str]], settings: Mapping[str, Any]) -> str:
    """Name of a video's files, without ending: the prompt's first letters and digits, of any script, the seed, and a
    hash of all that decides what it shows. Videos of other prompts or settings have other names.
    """
    content = json.dumps([prompt, seed, list(turns), dict(settings)], sort_keys=True)
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", prompt).casefold())[:SLUG]
    slug = words.encode()[:SLUG_BYTES].decode(errors="ignore").strip("-") or "video"
    return f"{slug}-seed{seed}-{hashlib.sha256(content.encode()).hexdigest()[:DIGITS]}"


def free_name(name: str, taken: Callable[[str], bool]) -> str:
    """The name, numbered where it is taken."""
    return next(new for number in itertools.count(1) if not taken(new := name if number == 1 else f"{name}-{number}"))


def refuse_others(videos: Iterable[Video], folder: Path) -> None:
    """Let no video replace that of another prompt.

    Raises:
        OutputError: a sidecar of one of these names says another prompt or seed.
    """
    for video in videos:
        path = folder / f"{video.stem}.json"
        try:
            there = Reader(OutputError).table(path)
            owner = there["prompt"], there["seed"]
        except (OutputError, LookupError):
            continue  # no sidecar, so no finished video
        if owner != (video.prompt, video.seed):
            raise OutputError(
                folder / f"{video.stem}.mp4",
                "prompt",
                f"holds the video of {owner[0]!r}, seed {owner[1]}",
                hint="move it, or choose another --out",
            )


def batches(videos: list[Video], size: int) -> list[list[Video]]:
    """Videos that run together: in order, at most `size`, all switching at the same latents."""
    groups: list[list[Video]] = []
    for video in videos:
        times = [latent for latent, _ in video.switches]
        if groups and len(groups[-1]) < size and times == [latent for latent, _ in groups[-1][0].switches]:
            groups[-1].append(video)
        else:
            groups.append([video])
    return groups

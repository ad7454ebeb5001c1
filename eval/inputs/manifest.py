"""Reads and writes `manifest.jsonl`: a folder's videos with their prompts.

One JSON object a line:

| key | value | default |
|---|---|---|
| `video` | file, relative to the manifest's folder and inside it | needed |
| `prompt` | the prompt; needed where `prompt_id` names none of the prompt set | |
| `prompt_id` | id in the prompt set, or any text; videos that share it are samples of one prompt | found by `prompt` |
| `seed` | whole number | unknown |
| `index` | which of the prompt's samples, from 0 | unknown |
| `segments` | `[{"start": 0, "end": 10, "prompt": "..."}, ...]` in seconds, in order | none |
| `switches` | instead of `segments`: `[[48, "..."], ["5s", "..."]]`, a frame or a time in seconds, and the prompt that
    takes over | none |
| `labels` | object, added to what the prompt set says | none |
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import Field, JsonValue, StrictInt, ValidationError, model_validator

from astro_cli.config.base import Config, validate
from astro_cli.config.files import Reader
from astro_cli.config.parsing import parse_json
from astro_cli.config.problems import first_problem
from astro_cli.generate.media import written_whole
from eval.contract import Sample, Segment
from eval.inputs.entries import Entry, Finding, InputError, Listing, Turn, about
from eval.prompt_sets import Prompt, PromptSet, text_id

MANIFEST = "manifest.jsonl"
SECONDS = re.compile(r"^(\d+(?:\.\d+)?)\s*s$")
SET_LABELS_HINT = "the set's text is what is scored; take the id out where the video is of another prompt"


class _Part(Config):
    start: float = Field(ge=0)
    end: float
    prompt: str = Field(min_length=1)


class ManifestLine(Config):
    """A line of the manifest, as the table above says."""

    video: str = Field(min_length=1)
    prompt: str | None = Field(default=None, min_length=1)
    prompt_id: str | None = Field(default=None, min_length=1)
    seed: StrictInt | None = None
    index: StrictInt | None = Field(default=None, ge=0)
    segments: list[_Part] = Field(default_factory=list)
    switches: list[tuple[StrictInt | str, str]] = Field(default_factory=list)
    labels: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        path = PurePosixPath(self.video.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"^[A-Za-z]:", self.video):
            raise ValueError("video: expected a path relative to the manifest's folder and inside it")
        if self.segments and self.switches:
            raise ValueError("found segments and switches, expected one of them")
        if self.prompt is None and self.prompt_id is None and not self.segments:
            raise ValueError("found neither prompt nor prompt_id")
        _check_order(self.parts())
        _check_times(self.turns())
        return self

    def turns(self) -> tuple[Turn, ...]:
        """The switches, frames as whole numbers, seconds as "5s".

        Raises:
            ValueError: a time that is neither.
        """
        return tuple(_turn(time, prompt) for time, prompt in self.switches)

    def parts(self) -> tuple[Segment, ...]:
        return tuple(Segment(part.start, part.end, part.prompt) for part in self.segments)


def _check_order(segments: tuple[Segment, ...]) -> None:
    for before, part in zip((None, *segments), segments, strict=False):
        if part.end <= part.start or (before is not None and part.start < before.end):
            raise ValueError(
                f"segments: {part.start:g} to {part.end:g} s, expected a start before its end, in order and "
                "without overlap"
            )


def _check_times(turns: tuple[Turn, ...]) -> None:
    """Frames and seconds can be compared once the video's fps is known, by `Entry.problem`."""
    late = any(a.unit == b.unit and a.time >= b.time for a, b in itertools.pairwise(turns))
    if late or any(turn.time <= 0 for turn in turns):
        raise ValueError("switches: expected times after the beginning, in order")


def _turn(time: int | str, prompt: str) -> Turn:
    if isinstance(time, int):
        return Turn(time, "frames", prompt)
    match = SECONDS.match(time)
    if match is None:
        raise ValueError(f"switches: found {time!r}, expected a frame (48) or seconds ('5s')")
    return Turn(float(match[1]), "seconds", prompt)


def _is_file(path: Path) -> bool:
    """Whether it is there; a name too long for a file, a whole prompt as a rule, is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def list_manifest(folder: Path, prompts: PromptSet | None) -> Listing:
    """Entries of the manifest's lines; lines that are malformed, lack their file or their prompt become findings."""
    entries: list[Entry] = []
    findings: list[Finding] = []
    absent: list[str] = []
    unmatched: list[str] = []
    reworded: list[str] = []
    named: Counter[tuple[str, str | None]] = Counter()
    for number, line in _lines(folder / MANIFEST, findings):
        path = folder / line.video
        matches = _prompts(line, prompts)
        named[line.video, line.prompt_id or line.prompt] += 1
        if not _is_file(path):
            absent.append(line.video)
        elif prompts is not None and not matches:
            unmatched.append(f"{line.video} (line {number})")
        else:
            reworded += [line.video for prompt in matches if line.prompt not in (None, prompt.text, prompt.source)]
            entries += [_entry(path, line, prompt) for prompt in matches or [None]]
    findings += about(
        "error",
        folder,
        "video",
        f"named in {MANIFEST}, but not there",
        absent,
        hint="paths are relative to the manifest's folder",
    )
    twice = [video for (video, _), times in named.items() if times > 1]
    findings += about(
        "error",
        folder,
        "video",
        f"named more than once in {MANIFEST} with one prompt",
        twice,
        hint="keep one line of each",
    )
    if prompts is not None:
        hint = f"ids look like {prompts.prompts[0].id}; without prompt_id the prompt has to be the set's own"
        findings += about("error", folder, "prompt", f"is of no prompt of {prompts.name}", unmatched, hint=hint)
        findings += about(
            "warning",
            folder,
            "prompt",
            "has another text than its prompt_id in the set",
            reworded,
            hint=SET_LABELS_HINT,
        )
    return Listing(folder, "manifest", tuple(entries), tuple(findings))


def _prompts(line: ManifestLine, prompts: PromptSet | None) -> tuple[Prompt, ...]:
    if prompts is None:
        return ()
    if line.prompt_id is not None:
        return (prompts.by_id[line.prompt_id],) if line.prompt_id in prompts.by_id else ()
    return prompts.find(line.prompt or "")


def _entry(path: Path, line: ManifestLine, prompt: Prompt | None) -> Entry:
    """The set's text wins over the line's: a video made from an extended prompt is scored with the original one."""
    own = line.parts()
    if prompt is None:
        text = line.prompt or (own[0].prompt if own else "")
        return Entry(path, line.prompt_id or text_id(text), text, line.seed, line.index, own, line.turns(), line.labels)
    segments = own or (() if line.switches else prompt.segments)
    return Entry(
        path, prompt.id, prompt.text, line.seed, line.index, segments, line.turns(), {**prompt.labels, **line.labels}
    )


def _lines(path: Path, findings: list[Finding]) -> Iterator[tuple[int, ManifestLine]]:
    try:
        texts = Reader(InputError, hint="expected a text file in UTF-8").text(path).split("\n")
    except InputError as error:
        findings.append(Finding("error", path.name, error.key, error.what, error.hint))
        return
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = validate(ManifestLine, parse_json(text))
        except ValueError as error:  # the parser's and pydantic's are such
            what, hint = _reason(error)
            findings.append(
                Finding(
                    "error",
                    path.name,
                    f"line {number}",
                    what,
                    hint or 'expected {"video": "a.mp4", "prompt": "...", "seed": 0}',
                )
            )
            continue
        yield number, line


def _reason(error: ValueError) -> tuple[str, str]:
    """What is wrong, and a hint where there is a better one than an example."""
    if isinstance(error, ValidationError):
        wrong = first_problem(error, ManifestLine)
        return wrong.text, wrong.hint
    return str(error), ""


def write_manifest(samples: Iterable[Sample], folder: Path) -> Path:
    """`manifest.jsonl` of samples whose files are in `folder`; loading it gives the samples again. Returns its path.

    Raises:
        OutputError: it cannot be written.
        ValueError: a sample's file is not inside the folder.
    """
    path = Path(folder) / MANIFEST
    lines = [json.dumps(_row(sample, Path(folder)), ensure_ascii=False, allow_nan=False) for sample in samples]
    with written_whole(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _row(sample: Sample, folder: Path) -> dict[str, Any]:
    labels = dict(sample.labels)
    index = labels.pop("index", None)
    row = {
        "video": sample.path.resolve().relative_to(folder.resolve()).as_posix(),
        "prompt_id": sample.prompt_id,
        "prompt": sample.prompt,
        "seed": sample.seed,
        "index": index,
        "segments": [asdict(segment) for segment in sample.segments],
        "labels": labels,
    }
    return {key: value for key, value in row.items() if value not in (None, [], {})}

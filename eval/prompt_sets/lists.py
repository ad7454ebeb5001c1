"""Prompt sets of plain lists: MovieGen, the interactive scripts, a user's own file."""

from __future__ import annotations

import re
from pathlib import Path

from astro_cli.config.parsing import ParseError, parse_json
from astro_cli.config.prompt_files import TABLES, PromptFile
from eval.contract import Segment
from eval.prompt_sets.base import Prompt, PromptSet, PromptSetError, numbered
from eval.prompt_sets.list_files import locate_list, read_lines

MOVIEGEN = "MovieGenVideoBench.txt"
MOVIEGEN_FIRST = 128  # Reward Forcing's long videos; Astrolabe takes 100, which it does not name
INTERACTIVE = ("memflow_interactive_benchmark.jsonl", "interactive_benchmark.jsonl", "interactive_benchmark.txt")
SCRIPT_SECONDS = 10.0  # of every prompt where the file does not say: MemFlow and LongLive switch every 10 s
PART = re.compile(r"^(.*?)\s*\[(\d+(?:\.\d+)?)s\]$", re.DOTALL)


def moviegen(first: int | None = MOVIEGEN_FIRST) -> PromptSet:
    """The first prompts of MovieGen's list; None: all 1,003 (998 texts). The list is CC-BY-NC.

    Raises:
        PromptSetError: the list is not here or shorter.
    """
    path = locate_list("moviegen", MOVIEGEN, origin="prompts of Self-Forcing's repository")
    lines = read_lines(path)
    if first is not None and not 1 <= first <= len(lines):
        raise PromptSetError(
            path,
            f"moviegen-{first}",
            f"the list has {len(lines)} prompts",
            hint=f"allowed: moviegen-1 to moviegen-{len(lines)}",
        )
    prompts = tuple(Prompt(numbered("moviegen", line), text) for line, text in enumerate(lines[:first]))
    return PromptSet(
        "moviegen", f"{path.name}, {'all' if first is None else f'first {first}'} of {len(lines)}", prompts
    )


def interactive() -> PromptSet:
    """The scripts of interactive videos: MemFlow's JSON lines, or Astrolabe's text. Both have 100 scripts of 6 prompts
    of 10 s.

    Raises:
        PromptSetError: the file is not here or not in its format.
    """
    path = locate_list("interactive", *INTERACTIVE, origin="MemFlow's or Astrolabe's repository")
    return PromptSet("interactive", path.name, scripts("interactive", path))


def scripts(name: str, path: Path) -> tuple[Prompt, ...]:
    """The scripts of a file: JSON lines {"prompts": [...]}, or lines of "prompt [10s] | prompt [10s] | ..."."""
    parse = _json_script if path.suffix == ".jsonl" else _text_script
    return tuple(
        _script(numbered(name, index), parse(path, index + 1, line)) for index, line in enumerate(read_lines(path))
    )


def custom(path: Path) -> PromptSet:
    """A user's file: one prompt a line, a table with a column of prompts (.csv, .tsv), or scripts where it is .jsonl or
    has parts that end in a time like [10s]. Its stem is the name.

    Raises:
        PromptSetError: unreadable, empty or malformed.
    """
    if path.suffix.lower() in TABLES:
        lines = [line.prompts[0] for line in PromptFile(path, PromptSetError, "").lines()]
    else:
        lines = read_lines(path)
    if path.suffix == ".jsonl" or all(PART.match(part) for line in lines for part in line.split(" | ")):
        return PromptSet(path.stem, path.name, scripts(path.stem, path))
    return PromptSet(
        path.stem, path.name, tuple(Prompt(numbered(path.stem, line), text) for line, text in enumerate(lines))
    )


def _script(id: str, parts: list[tuple[str, float]]) -> Prompt:
    """A prompt with its segments, one after the other; a script of one part is a prompt like any other."""
    segments, start = [], 0.0
    for text, seconds in parts:
        segments.append(Segment(start, start + seconds, text))
        start += seconds
    return Prompt(id, segments[0].prompt, segments=tuple(segments) if len(segments) > 1 else ())


def _json_script(path: Path, number: int, line: str) -> list[tuple[str, float]]:
    hint = 'expected {"prompts": ["...", "..."]} or {"prompt": "..."}'
    try:
        row = parse_json(line)
    except ParseError as error:
        raise PromptSetError(path, f"line {number}", str(error), hint=hint) from error
    texts = row.get("prompts", [row["prompt"]] if "prompt" in row else None) if isinstance(row, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise PromptSetError(path, f"line {number}", "no prompts", hint=hint)
    return [(text.strip(), SCRIPT_SECONDS) for text in texts]


def _text_script(path: Path, number: int, line: str) -> list[tuple[str, float]]:
    parts = [PART.match(part.strip()) for part in line.split(" | ")]
    turns = [(part[1].strip(), float(part[2])) for part in parts if part and part[1].strip() and float(part[2]) > 0]
    if len(turns) < len(parts):
        raise PromptSetError(
            path, f"line {number}", "a part without prompt or time", hint="expected: prompt [10s] | prompt [10s] | ..."
        )
    return turns

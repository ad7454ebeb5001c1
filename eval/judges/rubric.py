"""Reward Forcing's rubric of a video: the question, and how an answer is read. Free of torch.

Source: Reward Forcing (arXiv 2512.04678), supplement S3, "Full Input Template"; the text is `reward_forcing.txt`, word
for word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DIMENSIONS = {
    "text_alignment": "Text Alignment",
    "dynamics": "Dynamics",
    "visual_quality": "Visual Quality",
}  # key -> name, in the order asked
LOWEST, HIGHEST = 1, 5
BLANK = "{text_prompt}"
ECHO = "[1-5]"  # the format line repeated instead of filled in
THOUGHT = "</think>"  # what some models think aloud ends so
VALUE = re.compile(r"^\[?\s*(?P<number>-?\d+(?:\.\d+)?)\s*(?:/\s*(?P<of>\d+))?\s*\]?(?P<tail>.*)$")
ENDS = re.compile(r"^(?:$|[\s.,;:(*_–—-])")  # what may follow a number
RANGE = re.compile(r"^\s*(?:-|–|—|to\b|or\b|/)\s*\d")  # "4-5", "3 to 4": no single number


@dataclass
class Reading:
    """What an answer says: a score per dimension, or why there is none."""

    scores: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def question(prompt: str) -> str:
    """The rubric for a prompt; the video goes before it.

    **Deviations:** the print has lost the braces of its blanks; `Text Prompt: ""` is read as the prompt in quotes.
    """
    return (Path(__file__).parent / "reward_forcing.txt").read_text(encoding="utf-8").replace(BLANK, prompt)


def read(answer: str) -> Reading:
    """Scores 1 to 5 of an answer, line by line, whatever the order; markdown, brackets and "/5" are taken off.

    A dimension fails, and is never given a number, where its line is missing, holds no whole number from 1 to 5, or
    comes twice with two numbers.
    """
    reading = Reading()
    spoken = answer.rpartition(THOUGHT)[2]
    for key, name in DIMENSIONS.items():
        values = [_value(rest) for rest in _lines(spoken, name)]
        numbers = sorted({value for value in values if isinstance(value, int)})
        wrong = [value for value in values if isinstance(value, str)]
        if not values:
            reading.failures[key] = f"no line '{name}: N'"
        elif wrong:
            reading.failures[key] = wrong[0]
        elif len(numbers) > 1:
            reading.failures[key] = f"{len(numbers)} different numbers: {', '.join(map(str, numbers))}"
        else:
            reading.scores[key] = numbers[0]
    return reading


def _lines(answer: str, name: str) -> Iterator[str]:
    """What stands behind "name:" in every line that begins with it."""
    pattern = re.compile(rf"^[\s>#*_\-\d.)]*{re.escape(name)}[\s*_]*[:：](?P<rest>.*)$", re.IGNORECASE | re.MULTILINE)
    rests = (match["rest"].strip(" \t*_`") for match in pattern.finditer(answer))
    return (rest for rest in rests if rest != ECHO)


def _value(rest: str) -> int | str:
    """The number, or what is wrong."""
    match = VALUE.match(rest)
    if match is None or not ENDS.match(match["tail"]) or RANGE.match(match["tail"]):
        return f"no single number in {rest[:40]!r}"
    number = float(match["number"])
    if match["of"] is not None and int(match["of"]) != HIGHEST:
        return f"found {match['number']}/{match['of']}, expected a number of {HIGHEST}"
    if not number.is_integer():
        return f"found {match['number']}, expected a whole number"
    if not LOWEST <= number <= HIGHEST:
        return f"found {match['number']}, expected {LOWEST} to {HIGHEST}"
    return int(number)

"""The class of a prompt set, its hash, and how a text is found in it."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from astro_cli.config.errors import AstroError
from eval.contract import Segment

HASH_DIGITS = 16
ID_DIGITS = 12


class PromptSetError(AstroError):
    """A prompt set that is unknown, not there, or not in its format."""


@dataclass(frozen=True)
class Prompt:
    """One entry of a prompt set.

    Attributes:
        id: "<set>-<line>", lines counted from 0; stable as long as the list is.
        text: what scorers are given and file names carry. Of a script the first segment's prompt.
        labels: what else the list says, JSON values (VBench's `dimension` and `auxiliary_info`, the image of an I2V
            prompt).
        segments: the parts of an interactive script; empty: one prompt throughout.
        source: what the video is made from where that is another text (an extended prompt); "": `text`.
    """

    id: str
    text: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class PromptSet:
    """A list of prompts with a name. `version` says where the list is from, for people; what counts is `hash`."""

    name: str
    version: str
    prompts: tuple[Prompt, ...]

    @cached_property
    def hash(self) -> str:
        """16 hex digits of sha256 over ids and all texts, segments and extended prompts included."""
        rows = []
        for prompt in self.prompts:
            segments = [[segment.start, segment.end, segment.prompt] for segment in prompt.segments]
            rows.append([prompt.id, prompt.text, prompt.source, segments])
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()[:HASH_DIGITS]

    @cached_property
    def by_id(self) -> dict[str, Prompt]:
        return {prompt.id: prompt for prompt in self.prompts}

    def find(self, text: str) -> tuple[Prompt, ...]:
        """The entries with this text after Unicode NFC, in order; else those made from it; none: ().

        VBench has two texts with two entries each.
        """
        key = nfc(text)
        return self._by_text.get(key) or self._by_source.get(key) or ()

    def find_other_case(self, text: str) -> tuple[Prompt, ...]:
        """The entries whose text differs from this one in case only, where all of them have one text."""
        matches = self._by_folded.get(nfc(text).casefold(), ())
        return matches if len({prompt.text for prompt in matches}) == 1 else ()

    def of_dimensions(self, dimensions: tuple[str, ...]) -> tuple[Prompt, ...]:
        """The prompts of any of these VBench dimensions; none given: all."""
        return tuple(p for p in self.prompts if not dimensions or set(dimensions) & set(p.labels.get("dimension", ())))

    @cached_property
    def _by_text(self) -> dict[str, tuple[Prompt, ...]]:
        return self._index(lambda prompt: nfc(prompt.text))

    @cached_property
    def _by_source(self) -> dict[str, tuple[Prompt, ...]]:
        return self._index(lambda prompt: nfc(prompt.source))

    @cached_property
    def _by_folded(self) -> dict[str, tuple[Prompt, ...]]:
        return self._index(lambda prompt: nfc(prompt.text).casefold())

    def _index(self, key: Callable[[Prompt], str]) -> dict[str, tuple[Prompt, ...]]:
        groups: dict[str, list[Prompt]] = defaultdict(list)
        for prompt in self.prompts:
            groups[key(prompt)].append(prompt)
        return {text: tuple(prompts) for text, prompts in groups.items() if text}


def nfc(text: str) -> str:
    """Unicode's composed form, without blanks around: macOS decomposes file names, so that 'ç' there is two
    characters.
    """
    return unicodedata.normalize("NFC", text).strip()


def text_id(text: str) -> str:
    """The id of a prompt that belongs to no set: equal texts, equal ids."""
    return f"text-{hashlib.sha256(nfc(text).encode()).hexdigest()[:ID_DIGITS]}"


def numbered(name: str, line: int) -> str:
    """The id of a list's line, counted from 0."""
    return f"{name}-{line:04d}"

"""The catalog of prompt sets by name; the modules beside it read the lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from astro_cli.config.errors import did_you_mean
from astro_cli.config.files import expanded
from eval.prompt_sets import lists, vbench
from eval.prompt_sets.base import PromptSet, PromptSetError

READERS: dict[str, Callable[[], PromptSet]] = {
    "interactive": lists.interactive,
    "moviegen": lists.moviegen,
    "moviegen-all": lambda: lists.moviegen(None),
    "vbench": vbench.vbench,
    "vbench-extended": vbench.vbench_extended,
    "vbench-i2v": vbench.vbench_i2v,
}
NAMES = tuple(READERS)
FIRST = re.compile(r"^moviegen-([0-9]{1,9})$")


def prompt_set(name: str | Path) -> PromptSet:
    """A prompt set.

    Args:
        name: one of `NAMES`, "moviegen-<N>" for the first N, or a text or .jsonl file of one's own.

    Raises:
        PromptSetError: no such set, its list is not here, or it is malformed.
    """
    text = str(name)
    if text in READERS:
        return READERS[text]()
    if match := FIRST.match(text):
        return lists.moviegen(int(match[1]))
    path = expanded(name)
    if path.is_file():
        return lists.custom(path)
    raise PromptSetError("prompt set", text, "neither a prompt set nor a file", hint=did_you_mean(text, NAMES))

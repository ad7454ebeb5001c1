"""Where prompt lists lie on disk and how their lines are read."""

from __future__ import annotations

import os
from pathlib import Path

from astro_cli.config.files import Reader, expanded
from astro_cli.zoo.places import checkpoints_folder
from eval.prompt_sets.base import PromptSetError

PROMPTS_VARIABLE = "ASTRO_PROMPTS"


def prompts_folder() -> Path:
    """The folder that ASTRO_PROMPTS names, else `prompts` in the checkpoints folder."""
    given = os.environ.get(PROMPTS_VARIABLE)
    return expanded(given) if given else checkpoints_folder() / "prompts"


def find_list(*names: str) -> Path | None:
    """The first of these files in the prompts folder or a folder directly in it."""
    folder = prompts_folder()
    paths = (path for name in names for path in (folder / name, *sorted(folder.glob(f"*/{name}"))) if path.is_file())
    return next(paths, None)


def locate_list(name: str, *names: str, origin: str) -> Path:
    """`find_list`, which has to be there.

    Args:
        name: of the prompt set, for the message.
        origin: where the file comes from.

    Raises:
        PromptSetError: it is not, with where to put it.
    """
    path = find_list(*names)
    if path is None:
        hint = f"put {' or '.join(names)} ({origin}) into {prompts_folder()}, or name its folder in {PROMPTS_VARIABLE}"
        raise PromptSetError(name, "", "this prompt list is not here", hint=hint)
    return path


def read_text(path: Path) -> str:
    """A UTF-8 file's text, with or without a byte order mark.

    Raises:
        PromptSetError: it cannot be read.
    """
    return Reader(PromptSetError, hint="expected a text file in UTF-8").text(path)


def read_lines(path: Path) -> list[str]:
    """The lines, without blanks around. Only line feeds end one: a prompt may hold Unicode's other line separators.

    Raises:
        PromptSetError: unreadable, no line, or an empty one between others, which would shift the numbers of those
            below.
    """
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    empty = next((number for number, line in enumerate(lines, 1) if not line), None)
    if empty is not None:
        what = "no prompt in this file" if len(lines) == 1 else "empty line"
        raise PromptSetError(path, "" if len(lines) == 1 else f"line {empty}", what, hint="one prompt a line")
    return lines

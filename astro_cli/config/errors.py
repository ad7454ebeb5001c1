"""The errors a user can cause or meet, and how they read. Everything else is a bug and may travel as a traceback.

error: <where>: <key>: <what>
hint: <what to do>
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable

EXIT_RUN = 1  # the run failed
EXIT_USAGE = 2  # the command, the recipe or an input is wrong
EXIT_PARTIAL = 3  # an evaluation that lacks videos or metrics
EXIT_INTEGRITY = 4  # numbers that do not add up

# C0 and C1 controls (escape sequences begin with one), marks that turn the direction of writing, and what is no text.
CONTROL_OR_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class AstroError(Exception):
    """Base of all errors shown to the user.

    Args:
        where: file or thing the error is in, e.g. a recipe's path or "prompt".
        key: dotted key, or the offending value where there is no key; "" for none.
        what: what is wrong, what was found and what is allowed.
        hint: what to do about it; "" for none.
    """

    exit_code = EXIT_USAGE

    def __init__(self, where: object, key: str, what: str, *, hint: str = "") -> None:
        self.where, self.key, self.what, self.hint = str(where), key, what, hint
        super().__init__(self.where, key, what)

    def __str__(self) -> str:
        parts = [printable(part, line=True) for part in (self.where, self.key) if part]
        parts += [printable(self.what)] if self.what else []
        return "error: " + ": ".join(parts) + (f"\nhint: {printable(self.hint)}" if self.hint else "")


class RecipeError(AstroError):
    """A recipe is missing, unreadable or wrong."""


class PromptError(AstroError):
    """A prompt the backbone's text side cannot take."""


class CheckpointError(AstroError):
    """A weights file that is missing, damaged or of another model."""


class StreamError(AstroError):
    """A stream that cannot run as asked: its length, its given frames or a prompt switch."""


class RecordingError(AstroError):
    """Recordings of a model that are missing, damaged or of another format."""


class OutputError(AstroError):
    """An output folder that cannot be used: it holds another run, or cannot be written."""


class RecordError(AstroError):
    """Evaluation records or tables that are missing, damaged or do not belong together."""


class IntegrityError(AstroError):
    """Numbers that do not belong together: records of one arm under two protocols."""

    exit_code = EXIT_INTEGRITY


class RunError(AstroError):
    """The run itself failed: non-finite loss, disk full, an interrupted worker."""

    exit_code = EXIT_RUN


def printable(text: str, *, line: bool = False) -> str:
    """Text as a terminal may show it: control characters and halves of surrogate pairs are written as JSON does,
    `\\u001b`. A name from a file or folder could otherwise move the cursor or clear the screen.

    Args:
        line: whether line feeds and tabs are written so too.
    """
    if text.isprintable():
        return text
    pattern = CONTROL_OR_BREAK if line else CONTROL
    return pattern.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Unable to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was used up: Python's, torch's or numpy's."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(f"warning: {printable(text)}", file=sys.stderr)


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """'did you mean X?' for a near miss, else the list of what is allowed."""
    names = sorted(set(allowed))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(names)}"

"""Opens the files that a user gives. Every reader of text, JSON, TOML, CSV and tensors comes by here.

Only regular files are opened: a pipe or a device never ends. None is read that memory cannot hold. What is wrong
becomes the caller's kind of error, with the file, the key, what was found and what is allowed.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from astro_cli.config import pointers
from astro_cli.config.errors import AstroError
from astro_cli.config.parsing import ParseError, decoded, parse_json, parse_toml
from astro_cli.core import memory

SHARE = 16  # a text may have 1/16 of the free memory: as JSON values it takes about ten times its bytes
TOML_BYTES = 2**22  # Python's TOML reader takes a second per MB
UNSIZED_BYTES = 2**20  # read of a file that says it is empty, as those of /proc do
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}


class Reader:
    """How a reader's errors read.

    Args:
        error: the class of its errors.
        key: what they name behind the file, where the text itself gives no key.
        what: what the file is not ("no readable card"); before the reason.
        hint: what to do about it.
    """

    def __init__(self, error: type[AstroError], *, key: str = "", what: str = "", hint: str = "") -> None:
        self.error, self.key, self.what, self.hint = error, key, what, hint

    def content(self, path: Path, limit: float | None = None) -> bytes:
        """A file's bytes.

        Args:
            limit: how many it may have; default: what memory holds.

        Raises:
            AstroError: of the reader's class: missing, no regular file, too large, unreadable, or a pointer of git LFS.
        """
        most = int(min(limit or float("inf"), memory.available() / SHARE))
        try:
            with open(path, "rb", opener=regular) as file:
                size = os.fstat(file.fileno()).st_size
                content = b"" if size > most else file.read(-1 if size else UNSIZED_BYTES)
        except (OSError, ValueError) as error:
            self.fail(path, _unreadable(error), error)
        if size > most:
            self.fail(path, f"{size:,} bytes, expected at most {most:,} on this machine")
        if content and content.startswith(pointers.START):
            raise self.error(path, self.key, pointers.WHAT, hint=pointers.HINT)
        return content or b""

    def text(self, path: Path, limit: float | None = None) -> str:
        """A UTF-8 file's text, without a byte order mark."""
        return self._parsed(path, decoded, limit)

    def json(self, path: Path, *, finite: bool = True) -> Any:
        """The value of a JSON file. `finite`: whether NaN and infinite numbers are refused."""
        return self._parsed(path, lambda content: parse_json(content, finite=finite))

    def table(self, path: Path) -> dict[str, Any]:
        """The table of a JSON file."""
        value = self.json(path)
        if not isinstance(value, dict):
            self.fail(path, f"found {described(value)}, expected a JSON object")
        return value

    def toml(self, path: Path) -> dict[str, Any]:
        """The table of a TOML file."""
        return self._parsed(path, parse_toml, TOML_BYTES)

    def rows(self, path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
        """The column names of a CSV file, and the line number and cells of each row."""
        reader = csv.DictReader(io.StringIO(self.text(path), newline=""))
        try:
            header = [name.strip() for name in reader.fieldnames or []]
            rows = [(reader.line_num, _cells(row)) for row in reader]
        except csv.Error as error:
            self.fail(path, f"not CSV: {error}", error, f"line {reader.line_num + 1}")
        return header, rows

    def _parsed(self, path: Path, parse: Callable[[bytes], Any], limit: float | None = None) -> Any:
        content = self.content(path, limit)
        try:
            return parse(content)
        except ParseError as error:
            self.fail(path, error.what, error, error.key)

    def fail(self, path: Path, what: str, cause: Exception | None = None, key: str = "") -> NoReturn:
        """Raise the reader's error."""
        what = f"{self.what}: {what}" if self.what else what
        raise self.error(path, key or self.key, what, hint=self.hint) from cause


class NotRegular(OSError):
    """A folder, pipe, device or socket where a file is expected."""


def check_regular(path: Path, error: type[AstroError], *, hint: str = "") -> None:
    """Refuse a path that a library would wait for or never finish reading.

    Raises:
        error: missing, or no regular file.
    """
    try:
        _refuse_irregular(os.fspath(path), os.stat(path).st_mode)
    except (OSError, ValueError) as cause:
        raise error(path, "", _unreadable(cause), hint=hint) from cause


def regular(path: str, flags: int) -> int:
    """An opener for `open` that takes regular files only, and waits for no pipe's other end.

    Raises:
        NotRegular: a folder, pipe, device or socket.
    """
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _refuse_irregular(path, os.fstat(handle).st_mode)
    except NotRegular:
        os.close(handle)
        raise
    return handle


def _refuse_irregular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for matches, name in KINDS.items() if matches(mode)), "no regular file")
        raise NotRegular(errno.EINVAL, f"is {kind}, expected a file", path)


def _unreadable(error: OSError | ValueError) -> str:
    """What is wrong, of an error on opening. A ValueError is a name with a zero byte in it."""
    if isinstance(error, NotRegular):
        return str(error.strerror)
    why = error.strerror or str(error) if isinstance(error, OSError) else "no file has such a name"
    return f"cannot be read: {why}"


def claim(path: Path) -> None:
    """Make an empty file of one's own where a temporary file is to be written. A symbolic link that lies there is
    removed, never followed.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666))


def expanded(text: str | Path) -> Path:
    """A path with `~` and `~name` put in; of a user whom the system does not know it stays as it is."""
    return Path(os.path.expanduser(text))


def described(value: Any) -> str:
    """The kind of a JSON value, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _cells(row: dict[str | None, Any]) -> dict[str, str]:
    """A row without blanks around; cells beyond the header are left out."""
    return {(key or "").strip(): (value or "").strip() for key, value in row.items() if not isinstance(value, list)}

"""Reads prompt files: a prompt a line, JSON lines, or a table with a column of prompts.

| ending | a line, or row |
|---|---|
| `.jsonl`, `.json` | `{"prompt": "..."}`, or `{"prompts": ["...", "..."]}` of one video, in turn; its `"image"` |
| `.csv`, `.tsv` | the cell below `prompt`, `caption` or `text`, the first of them that the first line names |
| any other | the prompt itself |

Lines end at line feeds only: a prompt may hold Unicode's other separators. A byte order mark is no part of a prompt.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader
from astro_cli.config.parsing import ParseError, parse_json

COLUMNS = ("prompt", "caption", "text")
JSON_LINES, TABLES = (".jsonl", ".json"), {".csv": ",", ".tsv": "\t"}
JSON_HINT = 'expected {"prompts": ["...", "..."]} or {"prompt": "..."}'
BOM = "\ufeff"


@dataclass(frozen=True)
class PromptLine:
    """A line that holds prompts: several are those of one video, in turn. `image`: the picture that opens it."""

    number: int
    prompts: tuple[str, ...]
    image: Path | None = None


class PromptFile:
    """A file of prompts.

    Args:
        error: the class of its errors.
        key: what they name beside the file.
    """

    def __init__(self, path: Path, error: type[AstroError], key: str) -> None:
        self.path, self.error, self.key = path, error, key

    def lines(self) -> list[PromptLine]:
        """The lines that are not empty.

        Raises:
            AstroError: of the given class: unreadable, no prompt, a line that is no JSON, or a table without such a
                column.
        """
        text = Reader(self.error, key=self.key, hint="expected a text file in UTF-8").text(self.path)
        suffix = self.path.suffix.lower()
        if suffix in TABLES:
            prompt_lines = list(self._rows(text, TABLES[suffix]))
        else:
            numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
            parse = self._of_json if suffix in JSON_LINES else lambda number, line: PromptLine(number, (line.strip(),))
            prompt_lines = [parse(number, line) for number, line in numbered]
        if not prompt_lines:
            hint = "one prompt a line, JSON lines, or a .csv with a column of prompts"
            raise self.error(self.path, self.key, "no prompt in this file", hint=hint)
        return prompt_lines

    def _rows(self, text: str, delimiter: str) -> Iterator[PromptLine]:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            named = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
            column = next((named[name] for name in COLUMNS if name in named), None)
            if column is None:
                what = f"no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}, found {', '.join(named) or 'nothing'}"
                raise self.error(self.path, "line 1", what, hint="the first line of a table names its columns")
            for row in reader:
                if prompt := (row[column] or "").strip():
                    yield PromptLine(reader.line_num, (prompt,))
        except csv.Error as error:
            hint = "expected a table as spreadsheets export it"
            raise self.error(self.path, f"line {reader.line_num + 1}", f"no table: {error}", hint=hint) from error

    def _of_json(self, number: int, line: str) -> PromptLine:
        try:
            row = parse_json(line)
        except ParseError as error:
            raise self.error(self.path, f"line {number}", str(error), hint=JSON_HINT) from error
        prompts = row.get("prompts", [row["prompt"]] if "prompt" in row else None) if isinstance(row, dict) else None
        if (
            not isinstance(prompts, list)
            or not prompts
            or not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts)
        ):
            raise self.error(self.path, f"line {number}", "no prompts", hint=JSON_HINT)
        image = row.get("image")
        if image is not None and (not isinstance(image, str) or not image):
            what = f"image: found {image!r}, expected the path of a picture"
            raise self.error(self.path, f"line {number}", what, hint="absolute, or relative to this file")
        picture = None if image is None else self.path.parent / image
        return PromptLine(number, tuple(prompt.strip() for prompt in prompts), picture)
